"""The page's choice of what to cut out: clothing, which is there, or the whole subject, got ready on demand."""

import pytest
from server import script, start_server

from keras_matting.shipped import DEFAULT_MODEL, WHOLE_SUBJECT_MODEL


@pytest.fixture
def clothing(one_layer_dir, renamed):
    return renamed(one_layer_dir, DEFAULT_MODEL)


def choice(page):
    page.wait_for(lambda: page.find("#model").is_displayed())
    return [option.text for option in page.all("#model option")]


def test_the_whole_subject_is_got_ready_when_it_is_chosen(open_page, clothing, one_layer_dir, renamed, shirt, tmp_path):
    hold, other = tmp_path / "hold", renamed(one_layer_dir, WHOLE_SUBJECT_MODEL)
    with start_server(clothing, script=script(hold=hold), on_demand_models=other) as server:
        page = open_page(server.url)
        assert choice(page) == ["Clothing", "Whole subject"]
        assert page.find("#model-field").text.startswith("Cut out")
        page.show_cut_out(shirt)
        page.wait_for(lambda: "Clothing" in page.find("#facts").text)

        hold.touch()  # the other engine does not get through its first run
        page.set("#model", WHOLE_SUBJECT_MODEL, "change")
        page.wait_for(lambda: page.find("#photos .state").text == "Getting the model ready…")
        assert page.find("#frame-note").text == "Getting the model ready…"
        hold.unlink()
        assert page.finish(1) == ["done"]
        page.wait_for(lambda: "Whole subject" in page.find("#facts").text)


def test_a_model_that_cannot_be_got_ready_says_so_and_clothing_goes_on(open_page, clothing, shirt, tmp_path):
    with start_server(clothing, on_demand_models=tmp_path / WHOLE_SUBJECT_MODEL) as server:
        page = open_page(server.url)
        assert choice(page) == ["Clothing", "Whole subject"]
        page.set("#model", WHOLE_SUBJECT_MODEL, "change")
        page.choose(shirt)
        assert page.finish(1) == ["failed"]
        assert page.find("#problem-title").text == "The model could not be got ready"
        assert "Choose another model" in page.find("#problem-detail").text
        page.set("#model", DEFAULT_MODEL, "change")
        assert page.finish(1) == ["done"]
