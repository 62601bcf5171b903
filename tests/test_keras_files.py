"""Checkpoints that are damaged or something else: one sentence from what reads them. Fault: damaged_model_keras."""

import errno
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tiny

from keras_matting import models
from keras_matting.architectures import default_preset
from keras_matting.cli import main
from keras_matting.errors import MattingError, UsageError, WeightsError
from keras_matting.model_folder import KERAS_FILE
from keras_matting.models.folder import load_model, write_model_folder
from keras_matting.training import start
from keras_matting.training.progress import Progress
from keras_matting.weights import pretrained
from keras_matting.weights.checkpoints import import_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6\n"
PAGE = b"\n<!DOCTYPE html><html><title>404</title></html>"
HALF = 0.5


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A model folder, not exported."""
    write_model_folder(models.build_model("tiny", tiny.SIZE), default_preset("tiny", "mine"), tmp_path / "mine")
    return tmp_path / "mine"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, share=HALF):
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 255
    path.write_bytes(data)


def rezip(path, change=lambda members: None, compression=zipfile.ZIP_STORED):
    """Write the archive anew with {name: bytes} as `change` leaves them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def cut_weights(members):
    members["model.weights.h5"] = members["model.weights.h5"][:3000]


def other_weights(path):
    model = models.build_model("tiny", tiny.SIZE)
    model.get_layer("first").kernel.assign(np.ones(model.get_layer("first").kernel.shape))
    model.save(path)


def another_model(path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)


DAMAGES = {
    "pointer": (lambda path: path.write_bytes(POINTER), "Git LFS pointer.*git lfs pull"),
    "web page": (lambda path: path.write_bytes(PAGE), "it is a web page"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "missing": (lambda path: path.unlink(), "does not exist"),
    "no zip": (lambda path: path.write_bytes(b"weights" * 99), "no ZIP archive"),
    "cut off": (cut, "cut off"),
    "one byte": (flip, "checksum|cut off, damaged"),
    "another archive": (lambda path: rezip(path, lambda members: members.clear()), "an archive without"),
    "no weights": (lambda path: rezip(path, lambda members: members.pop("model.weights.h5")), "an archive without"),
    "weights cut off": (lambda path: rezip(path, cut_weights), "Expected a Keras model"),
    "another model": (another_model, "Expected a Keras model|Expected the weights|Expected weights of"),
    "other weights": (other_weights, "Expected the weights [0-9a-f]{12}, as preset.json says"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_file_is_one_sentence(folder, damage, message):
    damage(folder / KERAS_FILE)
    with pytest.raises(UsageError, match=message):
        load_model(folder)
    with pytest.raises(UsageError, match=message):
        start.load_initial_weights(models.build_model("tiny", tiny.SIZE), folder)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 23))
def test_wherever_a_byte_is_changed_the_weights_are_right_or_refused(folder, share):
    flip(folder / KERAS_FILE, share)
    try:
        load_model(folder)
    except UsageError:
        return
    start.load_initial_weights(models.build_model("tiny", tiny.SIZE), folder)


def test_a_damaged_model_that_is_not_ours_is_one_sentence(one_layer_dir, tmp_path):
    folder = shutil.copytree(one_layer_dir, tmp_path / "model")
    load_model(folder)
    cut(folder / KERAS_FILE)
    with pytest.raises(UsageError, match="cut off"):
        load_model(folder)


def test_every_verb_tells_a_pointer(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    pairs = str(tiny.write_pairs(tmp_path / "pairs"))
    (folder / KERAS_FILE).write_bytes(POINTER)
    run = ["train", "--init", str(folder), "--model", "tiny", "--data", pairs, "--epochs", "1"]
    for words in (
        ["export", str(folder)],
        ["evaluate", str(folder), "--data", pairs, "--engine", "keras"],
        [*run, "--augment", "none", "--out", str(tmp_path / "run")],
    ):
        assert main(words) == 2, words
        told = capsys.readouterr().err
        assert "git lfs pull" in told.splitlines()[-1]
        assert "Traceback" not in told


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.ckpt", "weights.onnx"])
@pytest.mark.parametrize(("content", "message"), [(POINTER, "git lfs pull"), (PAGE, "web page"), (b"", "empty")])
def test_a_checkpoint_that_is_a_pointer_or_a_page_is_told(tiny_model, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        import_checkpoint(tiny.build((16, 16)), tmp_path / name)


def test_an_official_file_that_is_a_pointer_is_told(tmp_path):
    (tmp_path / "u2netp.onnx").write_bytes(POINTER)
    (tmp_path / "out").mkdir()
    with pytest.raises(MattingError, match="git lfs pull"):
        pretrained.download("u2netp", tmp_path / "out", tmp_path / "u2netp.onnx")


def test_a_run_whose_checkpoint_is_cut_off_is_one_sentence(tmp_path):
    progress = Progress(tmp_path, "val_miou")
    progress.state["checkpoint"] = "checkpoint-1.npz"
    for content in (b"PK\x03\x04 and no more", b"", POINTER):
        (tmp_path / "checkpoint-1.npz").write_bytes(content)
        with pytest.raises(UsageError, match="Start the run anew"):
            progress.restore(None)


def test_compressed_weights_are_not_searched_through_within_their_archive(folder, monkeypatch):
    rezip(folder / KERAS_FILE, compression=zipfile.ZIP_DEFLATED)
    expected = load_model(folder).get_weights()
    # A step back inflates the member from its beginning.
    monkeypatch.setattr(zipfile.ZipExtFile, "seek", lambda *_: pytest.fail("a step back within a compressed file"))
    for actual, weights in zip(load_model(folder).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(actual, weights)


def test_weights_are_read_where_there_is_no_room_for_a_copy(folder, monkeypatch):
    expected = load_model(folder).get_weights()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    for actual, weights in zip(load_model(folder).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(actual, weights)
