"""Which masks of a source are mattes: what the whole set tells, and what training and data check make of it."""

import cv2
import numpy as np
import pytest
import tiny
from data_files import HEIGHT, WIDTH, blurred_by_jpeg, grey, half_mask, picture, save, soft
from PIL import Image

from keras_matting.cli import main
from keras_matting.data.mattes import look, together
from keras_matting.errors import UsageError
from keras_matting.training.selection import select

SUBJECT = np.asarray(half_mask()) > 0
FULL = Image.new("L", (WIDTH, HEIGHT), 255)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))


def write(folder, name, mask):
    stem = name.rpartition(".")[0]
    save(picture(len(stem)), folder / "image" / f"{stem}.png")
    save(mask, folder / "mask" / name)


def striped(*levels):
    return np.tile(np.repeat(np.array(levels, np.uint8), 20), (99, 1))


SETS_OF_CLASSES = {
    "the largest is 255": [striped(0, 0, *[255] * 7, 85)] * 4,
    "each has some of them": [striped(0, *[255] * 7, level, other) for level, other in [(85, 170), (85, 51), (51, 170)]]
    * 3,
    "subjects of one grey": [np.where(SUBJECT, 200, 0).astype(np.uint8)] * 4,
    "the same, resized": [cv2.resize(striped(0, 0, 0, *[200] * 5), (99, 61), interpolation=cv2.INTER_AREA)] * 4,
    "one shows nothing": [striped(0, *[255] * 8, 85)] * 4 + [striped(0)] * 5,
}
SETS_OF_MATTES = {
    "hard": [striped(0, 255, 255)] * 5,
    "soft": [soft()] * 5,
    "soft of few levels": [soft() // 5 * 5] * 5,
    "edges of two bits": [np.uint8(np.round(cv2.resize(striped(0, 255), (53, 33)) / 85.0) * 85)] * 5,
    "veils": [striped(0, *[255] * 8, level) for level in (60, 90, 161, 170, 201)],
    "a veil twice": [striped(0, *[255] * 8, 60)] * 2 + [striped(0, 255)] * 2,
    "some veils": [striped(0, *[255] * 8, 60)] * 3 + [striped(0, 255)] * 4,
    "nearly opaque": [striped(0, 255, 253)] * 5,
}


@pytest.mark.parametrize("alphas", SETS_OF_CLASSES.values(), ids=SETS_OF_CLASSES)
def test_flat_levels_that_come_back_in_a_set_are_classes(alphas):
    assert not any(look(alpha).misleads for alpha in alphas)
    kinds = {one.fault[0] for one in together([look(alpha) for alpha in alphas])}
    assert kinds - {"empty mask"} == {"class map"}


@pytest.mark.parametrize("alphas", SETS_OF_MATTES.values(), ids=SETS_OF_MATTES)
def test_a_set_of_mattes_is_none_of_class_maps(alphas):
    assert not any(one.misleads for one in together([look(alpha) for alpha in alphas]))


@pytest.mark.usefixtures("tiny_model", "home")
def test_class_maps_that_only_their_set_tells_are_refused_and_told(tmp_path, capsys):
    for number in range(4):
        write(tmp_path / "data", f"{'x' * (number + 1)}.png", grey(0, *[255] * 5, 85, 85))
    with pytest.raises(UsageError, match=r"class map \(4\): x, .*flat levels \(85\) as in other masks"):
        select(tiny.settings(tmp_path / "data", val_fraction=0.0))
    assert main(["data", "check", str(tmp_path / "data")]) == 1
    assert "class map  4" in capsys.readouterr().out


INVERTED = FULL.copy()
INVERTED.paste(0, (6, 4, 18, 12))


@pytest.mark.usefixtures("tiny_model", "home")
def test_doubtful_masks_are_used_and_told(tmp_path, caplog):
    for number, mask in enumerate([half_mask(), FULL, INVERTED, FULL.point(lambda _: 0)]):
        write(tmp_path / "data", f"{'x' * (number + 1)}.png", mask)
    told = ["all-white mask (1)", "inverted mask (1)", "empty mask (1)", "and used", "data check names them"]
    training, _ = select(tiny.settings(tmp_path / "data", val_fraction=0.0))
    assert len(training[0].samples) == 4
    assert all(words in caplog.text for words in told)


@pytest.mark.usefixtures("tiny_model", "home")
@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ([FULL, Image.fromarray(blurred_by_jpeg(253)[:HEIGHT, :WIDTH])], "are all white"),
        ([FULL.point(lambda _: 0), Image.fromarray(blurred_by_jpeg(0)[:HEIGHT, :WIDTH])], "are all black"),
        ([FULL, FULL.point(lambda _: 0)], "are all black or all white"),
    ],
    ids=["white", "black", "either"],
)
def test_masks_none_of_which_has_both_a_subject_and_a_background_are_refused(tmp_path, masks, told):
    for number, mask in enumerate(masks):
        write(tmp_path / "data", f"{'x' * (number + 1)}.png", mask)
    with pytest.raises(UsageError, match=told):
        select(tiny.settings(tmp_path / "data", val_fraction=0.0))
