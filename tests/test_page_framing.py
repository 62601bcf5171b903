"""Shop pictures on the page: cropped, on a canvas, with a shadow, in plain words."""

import io

import httpx
import numpy as np
import pytest
from browser import ActionChains, Keys
from PIL import Image
from server import start_server


@pytest.fixture(scope="module")
def service(red_model_dir):
    with start_server(red_model_dir) as server:
        yield server.url


@pytest.fixture
def page(open_page, service):
    return open_page(service)


def sizes(page):
    """Return (width, height) of the cut-out as it is, and whether it is shown alone."""
    height, width = page.pixels(".after").shape[:2]
    return (width, height), bool(page.all("#frame.alone"))


def show(page, size):
    page.wait_for(lambda: page.states() == ["done"] and page.all("#frame .after img"))
    page.wait_for(lambda: sizes(page)[0] == size)


def test_a_crop_is_shown_alone_and_the_whole_photo_compared(page, shirt):
    page.show_cut_out(shirt)
    assert sizes(page) == ((120, 90), False)
    page.set("#frame-kind", "subject", "change")
    page.wait_for(lambda: page.all("#frame.alone .after img"))
    (width, height), _ = sizes(page)
    assert 60 <= width <= 72 and 60 <= height <= 72  # a disc of 60 and 5 % around
    assert not page.find("#frame .before").is_displayed() and not page.find("#frame .handle").is_displayed()
    shown = page.find("#frame .after img").size
    assert shown["width"] / shown["height"] == pytest.approx(width / height, rel=0.02)
    assert f"{width} × {height}" in page.find("#facts").text
    page.set("#frame-kind", "photo", "change")
    page.wait_for(lambda: page.all("#frame.compared .after img"))
    assert sizes(page) == ((120, 90), False)


def test_a_canvas_with_margin_and_shadow_is_what_the_service_makes_and_is_downloaded(page, service, shirt):
    page.choose(shirt)
    assert page.finish(1) == ["done"]
    assert not page.find("#margin").is_displayed() and not page.find("#width").is_displayed()
    page.set("#frame-kind", "own", "change")
    show(page, (1200, 1500))
    for name, value in (("width", "200"), ("height", "300"), ("margin", "20")):
        field = page.find(f"#{name}")
        assert field.is_displayed()
        field.clear()
        field.send_keys(value, Keys.TAB)
    page.find("#shadow").click()
    page.wait_for(lambda: "shadow=soft" in " ".join(page.requests()))
    show(page, (200, 300))
    params = {"canvas": "200x300", "margin": "20%", "shadow": "soft"}
    expected = httpx.post(f"{service}/v1/matte", params=params, content=shirt.read_bytes()).content
    page.wait_for(lambda: page.download("#download", "shirt.cutout.png") == expected)
    page.click("[value='#ffffff']")
    filled = np.asarray(Image.open(io.BytesIO(page.download("#download", "shirt.cutout.png"))).convert("RGB"))
    assert filled.shape == (300, 200, 3)
    assert filled[0, 0].tolist() == [255, 255, 255]


def test_a_number_that_is_none_is_what_was_there_before(page, shirt):
    page.choose(shirt)
    page.set("#frame-kind", "own", "change")
    page.set("#width", "", "change")
    page.set("#height", "-3", "change")
    page.finish(1)
    show(page, (1200, 1))


def test_a_photo_without_a_subject_says_so(page, tmp_path):
    Image.new("RGB", (120, 90), (20, 40, 30)).save(tmp_path / "dark.png")
    page.set("#frame-kind", "subject", "change")
    page.choose(tmp_path / "dark.png")
    assert page.finish(1) == ["failed"]
    assert page.find("#problem-title").text == "There is no subject in the photo"
    assert "an empty matte" in page.find("#problem-detail").text


def test_the_frame_is_reached_by_the_tab_key_and_fits_a_narrow_screen(page):
    page.set("#frame-kind", "own", "change")
    page.js("document.activeElement.blur()")
    reached = set()
    for _ in range(20):
        ActionChains(page.browser, 0).send_keys(Keys.TAB).perform()
        name, outlined = page.focus()
        assert outlined or name == "empty", name  # the body, after the last
        reached.add(name)
    assert {"frame-kind", "width", "height", "margin", "shadow"} <= reached
    page.emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    assert page.js("return document.documentElement.scrollWidth") == 360
    assert page.controls_beyond(360) == []
