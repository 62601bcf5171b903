"""The page as its visitors meet it: headless Chromium in front of the real service."""

import io
import json
import re
import shutil
import threading
import zipfile
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from browser import ActionChains, Keys
from PIL import Image
from server import start_server

from keras_matting.photos.imaging import composite

KEY = "secret"
# Controls, in the words of the accessibility tree.
CONTROLS = {"button", "radio", "checkbox", "slider", "combobox", "link", "textbox", "ColorWell", "progressbar", "image"}


@pytest.fixture(scope="module")
def service(tiny_model_dir, tmp_path_factory):
    """A service of two models, "tiny" and "second"."""
    second = tmp_path_factory.mktemp("models") / "second"
    shutil.copytree(tiny_model_dir, second)
    preset = json.loads((second / "preset.json").read_text())
    (second / "preset.json").write_text(json.dumps({**preset, "name": "second"}))
    with start_server(tiny_model_dir, models=f"{tiny_model_dir},{second}") as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded_service(tiny_model_dir):
    """A service that wants a key and takes a request each second, after 60 at once."""
    with start_server(tiny_model_dir, api_key=KEY, client_per_minute=60) as server:
        yield server.url


@pytest.fixture
def page(open_page, service):
    return open_page(service)


@pytest.fixture
def broken(shirt, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(shirt.read_bytes()[:700])
    return path


def test_a_chosen_photo_becomes_a_visible_cut_out(page, shirt):
    page.show_cut_out(shirt)
    assert page.find("#photo-name").text == "shirt.jpg"
    assert page.find(".after img").is_displayed()
    assert page.find(".after img").get_attribute("alt") == "Cut-out of shirt.jpg"
    alpha = page.pixels(".after")[..., 3]
    assert alpha.shape == (90, 120)
    assert alpha.min() < 30 and alpha.max() > 225
    assert page.pixels(".before")[..., 3].min() == 255


def test_a_broken_photo_says_why_in_the_service_s_words_and_the_others_go_on(page, service, shirt, broken):
    page.choose(shirt, broken, shirt)
    assert page.finish(3) == ["done", "failed", "done"]
    assert re.fullmatch(r"2 cut out(, \d to look at)?, 1 failed", page.find("#count").text)
    page.click("#photos li:nth-child(2) .photo")
    problem = httpx.post(f"{service}/v1/matte", content=broken.read_bytes()).json()
    assert page.find("#problem-title").text == problem["title"]
    assert page.find("#problem-detail").text == problem["detail"]
    before = len([address for address in page.requests() if "/v1/matte" in address])
    page.find("#problem-retry").click()
    page.wait_for(lambda: len([address for address in page.requests() if "/v1/matte" in address]) > before)
    assert page.finish(3) == ["done", "failed", "done"]


def test_the_boundary_moves_by_keyboard_and_by_pointer(page, shirt):
    page.show_cut_out(shirt)
    slider = page.find("#split")
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert slider.get_attribute("value") == "48"
    assert slider.get_attribute("aria-valuetext") == "48 % photo, 52 % cut-out"
    slider.send_keys(Keys.HOME)
    all_cut_out = page.seen()
    slider.send_keys(Keys.END)
    all_photo = page.seen()
    assert np.abs(all_photo.astype(int) - all_cut_out).max() > 50
    frame = page.find("#frame")
    quarter = -frame.size["width"] // 4
    ActionChains(page.browser, 0).move_to_element(frame).click_and_hold().move_by_offset(quarter, 0).release().perform()
    assert abs(int(slider.get_attribute("value")) - 25) <= 1


def test_the_background_is_chosen_in_the_browser_alone(page, shirt, tmp_path):
    page.show_cut_out(shirt)
    page.find("#split").send_keys(Keys.HOME)
    alpha = page.pixels(".after")[..., 3]
    height, width = page.seen().shape[:2]
    row, column = np.unravel_index(alpha[10:-10, 10:-10].argmin(), (70, 100))  # within the frame's round corners
    spot = int((row + 10.5) * height / 90), int((column + 10.5) * width / 120)
    sent = len(page.requests())

    def behind():
        return page.seen()[spot].astype(int)

    for value, colour in (("#ffffff", 255), ("#000000", 0)):
        page.click(f"[value='{value}']")
        assert np.abs(behind() - colour).max() < 40
    page.set("#colour", "#ff8000", "input")
    assert np.abs(behind() - (255, 128, 0)).max() < 40
    Image.new("RGB", (50, 50), (0, 0, 255)).save(tmp_path / "sky.png")
    page.choose(tmp_path / "sky.png", within="#picture")
    page.wait_for(lambda: np.abs(behind() - (0, 0, 255)).max() < 40)
    assert not [address for address in page.requests()[sent:] if not address.startswith("blob:")]


def test_a_download_is_the_service_s_file_or_the_chosen_composite(page, service, shirt):
    page.show_cut_out(shirt)
    transparent = page.download("#download", "shirt.cutout.png")
    assert transparent == httpx.post(f"{service}/v1/matte", content=shirt.read_bytes()).content
    rgba = np.asarray(Image.open(io.BytesIO(transparent)))
    page.click("[value='#e9e7e2']")
    filled = page.download("#download", "shirt.cutout.png")
    expected = composite(rgba[..., :3], rgba[..., 3] / np.float32(255), np.uint8((0xE9, 0xE7, 0xE2)))
    image = np.asarray(Image.open(io.BytesIO(filled)).convert("RGBA"))
    assert image[..., 3].min() == 255
    assert np.abs(image[..., :3].astype(int) - expected).max() <= 2


def test_a_picture_that_cannot_be_read_is_refused_and_the_background_stays(page, shirt, tmp_path):
    page.show_cut_out(shirt)
    (tmp_path / "notes.txt").write_text("no picture")
    page.choose(tmp_path / "notes.txt", within="#picture")
    page.wait_for(lambda: "notes.txt" in page.find("#notice").text)
    assert page.find("[value=transparent]").is_selected()


def test_a_cut_out_is_copied_to_the_clipboard(page, service, shirt):
    permissions = {"origin": service, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    page.show_cut_out(shirt)
    page.find("#copy").click()
    page.wait_for(lambda: page.find("#copy").text == "Copied")
    size = page.browser.execute_async_script(
        "const done = arguments[0];"
        "navigator.clipboard.read().then(([item]) => item.getType('image/png')).then(createImageBitmap)"
        ".then(({ width, height }) => done([width, height]), (error) => done(error.message))"
    )
    assert size == [120, 90]


def test_all_photos_come_in_one_archive_under_names_of_their_own(page, shirt, broken):
    page.choose(shirt, broken)
    page.finish(2)
    page.bring("drop", {"shirt.png": shirt, "Häkelkleid.v2.jpeg": shirt})
    page.finish(4)
    with zipfile.ZipFile(io.BytesIO(page.download("#download-all", "cutouts.zip"))) as archive:
        assert archive.testzip() is None
        names = ["shirt.cutout.png", "shirt-2.cutout.png", "Häkelkleid.v2.cutout.png"]
        assert archive.namelist() == names
        assert {Image.open(archive.open(name)).mode for name in names} == {"RGBA"}


def test_names_that_disks_take_for_one_are_told_apart(page, shirt):
    page.bring("drop", dict.fromkeys(("Shirt.jpg", "shirt.png", "Bl\u00fcte.jpg", "Blu\u0308te.jpg"), shirt))
    page.finish(4)
    with zipfile.ZipFile(io.BytesIO(page.download("#download-all", "cutouts.zip"))) as archive:
        names = [name.removesuffix(".cutout.png") for name in archive.namelist()]
    assert names == ["Shirt", "shirt-2", "Bl\u00fcte", "Blu\u0308te-2"]


def test_an_archive_holds_what_is_done_and_what_it_lacks_is_told(page, shirt):
    """The page shows the cut-out of earlier settings beside the problem with the newer ones."""
    page.bring("drop", dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), shirt))
    page.finish(3)

    def archived():
        with zipfile.ZipFile(io.BytesIO(page.download("#download-all", "cutouts.zip"))) as archive:
            return archive.namelist()

    assert len(archived()) == 3
    assert page.find("#notice").text == ""
    page.set("#model", "second", "change")
    page.wait_for(lambda: "second" in page.find("#facts").text)
    page.finish(3)
    assert len(archived()) == 3
    page.wait_for(lambda: re.match("2 photos .*Apply to all photos", page.find("#notice").text))
    page.set("#width", "16000", "input")
    page.set("#height", "16000", "input")
    page.set("#frame-kind", "own", "change")
    page.wait_for(lambda: page.states() == ["failed", "done", "done"])
    assert page.find("#frame .after img").is_displayed()
    assert archived() == ["b.cutout.png", "c.cutout.png"]
    page.wait_for(lambda: re.match("1 photo is not in the ZIP.* 2 photos", page.find("#notice").text))


@pytest.mark.parametrize(("event", "name"), [("drop", "dress.jpg"), ("paste", "pasted-1.png")])
def test_photos_are_dropped_anywhere_and_pasted(page, shirt, event, name):
    page.bring(event, {"dress.jpg" if event == "drop" else "image.png": shirt})
    assert page.finish(1) == ["done"]
    assert page.find("#photos .name").text == name


def test_a_dropped_folder_gives_its_photos(page, shirt, write_photo, tmp_path):
    write_photo(tmp_path / "folder" / "inner" / "skirt.png")
    (tmp_path / "folder" / "notes.txt").write_text("no photo")
    data = {"items": [], "files": [str(tmp_path / "folder"), str(shirt)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 5, "y": 5, "data": data}
        page.browser.execute_cdp_cmd("Input.dispatchDragEvent", event)
        if kind == "dragOver":
            page.wait_for(lambda: page.all("body.dropping"))
    assert page.finish(2) == ["done", "done"]
    assert [name.text for name in page.all("#photos .name")] == ["shirt.jpg", "skirt.png"]
    assert not page.all("body.dropping")


def test_what_is_dropped_without_a_file_is_refused_with_a_remedy(page):
    page.bring("drop", {})
    page.wait_for(lambda: "Save the picture as a file" in page.find("[role=alert]").text)


def test_settings_are_sent_and_the_other_photos_follow_when_asked(page, shirt):
    page.show_cut_out(shirt, shirt)
    assert not page.find("#apply").is_displayed()
    page.set("#model", "second", "change")
    page.find("#foreground").click()
    page.finish(2)
    page.wait_for(lambda: "second" in page.find("#facts").text)
    page.find("#apply").click()
    page.wait_for(lambda: not page.find("#apply").is_displayed())
    page.finish(2)
    last = [address for address in page.requests() if "/v1/matte" in address][-1]
    assert "model=second" in last and "foreground=true" in last


def test_a_key_is_asked_for_where_the_service_wants_one(open_page, guarded_service, shirt):
    page = open_page(guarded_service)
    page.choose(shirt)
    assert page.finish(1) == ["failed"]
    page.find("#key").send_keys(KEY, Keys.TAB)
    page.wait_for(lambda: page.states() == ["done"])


@contextmanager
def crowd(url):
    """Take every token of this address's rate for as long as the block lasts."""
    over = threading.Event()

    def ask():
        with httpx.Client(base_url=url, headers={"X-API-Key": KEY}) as client:
            while not over.wait(0.01):
                if client.post("/v1/matte").status_code == 429:
                    taken.set()

    taken, thread = threading.Event(), threading.Thread(target=ask)
    thread.start()
    try:
        assert taken.wait(30)
        yield
    finally:
        over.set()
        thread.join()


def test_a_busy_service_is_waited_for_visibly(open_page, guarded_service, shirt):
    page = open_page(guarded_service)
    page.wait_for(lambda: page.find("#key").is_displayed())
    page.find("#key").send_keys(KEY, Keys.TAB)
    with crowd(guarded_service):
        page.choose(shirt, shirt)  # one might be lucky
        page.wait_for(lambda: re.search(r"busy; again in \d+ s \(\d of", page.find("#photos").text))
    assert page.finish(2) == ["done", "done"]


def test_two_requests_are_in_flight_and_never_three(page, shirt):
    page.choose(*[shirt] * 6)
    page.finish(6)
    spans = page.js(
        "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('/v1/matte'))"
        ".map(({ startTime, responseEnd }) => [startTime, responseEnd])"
    )
    assert len(spans) == 6
    assert max(sum(start < other < end for start, end in spans) for other, _ in spans) == 1


def test_nothing_is_loaded_from_elsewhere(page, service, shirt):
    page.show_cut_out(shirt)
    page.download("#download", "shirt.cutout.png")
    page.wait_for(lambda: any("/version" in address for address in page.requests()))
    assert {address.startswith((service, f"blob:{service}")) for address in page.requests()} == {True}


def test_object_urls_are_revoked_with_their_photos(page, shirt):
    page.show_cut_out(shirt, shirt)
    page.click("#photos li:nth-child(2) .photo")
    page.wait_for(lambda: page.find("#frame .after img").is_displayed())
    assert len(page.js("return [...window.urls]")) <= 4
    page.find("#photos li:nth-child(1) .remove").click()
    page.find("#photos li:nth-child(1) .remove").click()
    page.wait_for(lambda: page.js("return window.urls.size") == 0)
    assert page.find("#drop").is_displayed()
    assert page.js("return document.activeElement.matches('[data-choose]')")


def test_every_control_has_a_name(page, shirt, broken, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "sky.png")
    page.choose(shirt, broken)
    page.finish(2)
    page.choose(tmp_path / "sky.png", within="#picture")
    nodes = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nodes = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert {"button", "radio", "slider", "combobox", "ColorWell", "image"} <= {node["role"]["value"] for node in nodes}
    assert [node for node in nodes if not node["name"]["value"].strip()] == []


def test_progress_is_told_to_screen_readers(page, shirt, broken):
    page.choose(shirt, broken)
    page.finish(2)
    page.wait_for(lambda: "2 of 2 finished" in page.js("return document.querySelector('[role=status]').textContent"))


def test_all_is_reached_by_the_tab_key_with_a_visible_focus(page, shirt):
    page.show_cut_out(shirt, shirt)
    page.js("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        ActionChains(page.browser, 0).send_keys(Keys.TAB).perform()
        name, outlined = page.focus()
        if name in ("BODY", *reached[:1]):
            break
        assert outlined, name
        reached.append(name)
    expected = {"split", "colour", "choose-picture", "download", "photo", "icon remove", "download-all", "clear"}
    assert expected | {"model", "foreground", "refine"} <= set(reached)


@pytest.mark.parametrize("filled", [False, True])
def test_a_narrow_screen_is_enough(page, shirt, filled):
    page.emulate("setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    if filled:
        page.show_cut_out(shirt, shirt)
    assert page.js("return document.documentElement.scrollWidth") == 360
    assert page.controls_beyond(360) == []


def test_dark_and_motionless_are_respected(page, shirt):
    light = page.js("return getComputedStyle(document.body).backgroundColor")
    wishes = {"prefers-color-scheme": "dark", "prefers-reduced-motion": "reduce"}
    page.emulate("setEmulatedMedia", features=[{"name": name, "value": value} for name, value in wishes.items()])
    assert page.js("return getComputedStyle(document.body).backgroundColor") != light
    page.show_cut_out(shirt)
    page.js("document.querySelector('#frame').classList.add('working')")
    assert page.js("return document.getAnimations().length") == 0
