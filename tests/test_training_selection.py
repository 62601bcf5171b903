"""Which photos a run learns from: none that it is validated on, none whose mask shows nothing."""

import numpy as np
import pytest
import tiny

from keras_matting.errors import UsageError
from keras_matting.photos.files import encode
from keras_matting.training.run import train
from keras_matting.training.selection import select

pytestmark = pytest.mark.usefixtures("tiny_model")


def stems(sources):
    return {sample.stem for source in sources for sample in source.samples}


@pytest.mark.parametrize("named", ["", "pairs:"])
def test_validation_photos_are_not_trained_on(pairs, named, caplog):
    training, validation = select(tiny.settings(pairs, data=[f"{pairs}@2"], val=f"{named}{pairs}"))
    assert stems(validation) and not stems(training) & stems(validation)
    assert len(stems(training) | stems(validation)) == 12
    assert caplog.messages == [f"left out of {pairs}: validation photos ({len(stems(validation))})"]


def test_a_run_without_validation_is_told_to_have_none(pairs, caplog):
    with caplog.at_level("INFO", "keras_matting"):
        assert select(tiny.settings(pairs, val_fraction=0.0))[1] == []
        assert "no validation" in caplog.text
        caplog.clear()
        select(tiny.settings(pairs))
        assert "no validation" not in caplog.text


def test_a_run_that_would_be_validated_on_all_of_its_photos_is_refused(pairs):
    with pytest.raises(UsageError, match="beside those of the validation.*--val-fraction"):
        select(tiny.settings(pairs, val=str(pairs), val_fraction=0.0))


def test_photos_without_truth_may_be_those_of_the_validation(pairs):
    settings = tiny.settings(pairs, model="modnet", val=str(pairs), val_fraction=0.0, objective="soc")
    training, validation = select(settings)
    assert stems(training) == stems(validation)
    assert {source.kind for source in training} == {"unlabelled"}


def test_composites_are_no_photos_to_adapt_to(pairs, tmp_path):
    (tmp_path / "rgba").mkdir()
    (tmp_path / "rgba" / "a.png").write_bytes(encode(np.full((8, 8, 4), 99, np.uint8), ".png"))
    spec = f"composite:{tmp_path}/rgba,{pairs}/image"
    with pytest.raises(UsageError, match="Expected photos as they are, to adapt to"):
        select(tiny.settings(pairs, model="modnet", data=[spec], val_fraction=0.0, objective="soc"))


def cut_off(path):
    """Leave a file whose header is whole, and whose end is not there."""
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("part", ["image", "mask"])
def test_what_cannot_be_decoded_is_left_out_and_told(tmp_path, part, caplog):
    folder = tiny.write_pairs(tmp_path / "pairs")
    cut_off(folder / part / "03.png")
    training, validation = select(tiny.settings(folder))
    assert stems([*training, *validation]) == {f"{number:02}" for number in range(12)} - {"03"}
    assert "unreadable (1): 03; " in caplog.text
    assert "truncated" in caplog.text
    assert train(tiny.settings(folder, epochs=1), tmp_path / "run", verbose=0).epoch == 1


def test_photos_to_adapt_to_that_cannot_be_decoded_are_left_out_and_told(tmp_path, caplog):
    folder = tiny.write_pairs(tmp_path / "pairs")
    cut_off(folder / "image" / "03.png")
    cut_off(folder / "mask" / "04.png")  # which adapting does not need
    settings = tiny.settings(f"unlabelled:{folder}/image", model="modnet", val_fraction=0.0, objective="soc")
    assert stems(select(settings)[0]) == {f"{number:02}" for number in range(12)} - {"03"}
    assert "unreadable (1): 03; " in caplog.text
    training, _ = select(tiny.settings(folder, model="modnet", val_fraction=0.0, objective="soc"))
    assert "04" in stems(training)


def test_backgrounds_that_cannot_be_decoded_are_left_out_and_told(pairs, tmp_path, caplog):
    folder = tiny.write_pairs(tmp_path / "pairs")
    cut_off(folder / "image" / "03.png")
    (tmp_path / "rgba").mkdir()
    cutout = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    (tmp_path / "rgba" / "a.png").write_bytes(encode(cutout, ".png"))
    spec = f"composite:{tmp_path}/rgba,{folder}/image"
    (source,), _ = select(tiny.settings(spec, val_fraction=0.0))
    assert len(source.backgrounds) == 11
    assert "unreadable (1): 03; " in caplog.text


@pytest.mark.parametrize(
    ("white", "message"), [(0, "all black"), (1, r"received none: 0/1 mask \(\d+\): .* multiply by 255")]
)
def test_masks_that_show_nothing_are_refused(tmp_path, white, message):
    with pytest.raises(UsageError, match=message):
        train(tiny.settings(tiny.write_pairs(tmp_path / "pairs", white=white)), tmp_path / "run", verbose=0)


def test_a_refusal_ends_with_one_mark(tmp_path):
    with pytest.raises(UsageError, match=r"are these class ids\?$"):
        select(tiny.settings(tiny.write_pairs(tmp_path / "pairs", white=99)))


@pytest.mark.parametrize(
    "change", [{"epochs": float("nan")}, {"epochs": 1.5}, {"seed": "1"}, {"cache_gb": float("nan")}]
)
def test_numbers_that_are_none_are_refused(pairs, change):
    (name,) = change
    with pytest.raises(UsageError, match=f"Expected {name} as a .*number; received"):
        tiny.settings(pairs, **change)
