"""What `from-onnx` refuses: each in one sentence, and nothing is written."""

import re

import numpy as np
import onnx_files
import pytest
from onnx import TensorProto, helper
from onnx_files import SIDE

from keras_matting import foreign_onnx
from keras_matting.cli import main
from keras_matting.errors import MattingError, UsageError
from keras_matting.foreign_onnx import Asked, write_onnx_folder

HALVES = {"mean": [0.5], "std": [0.5]}
FIXED = [("Reshape", [np.array([1, 1, SIDE, SIDE])], {})]  # of one photo of one size
FURTHER = [helper.make_tensor_value_info("r1i", TensorProto.FLOAT, (1, 16, 4, 4))]
GLOBAL = [("GlobalAveragePool", [], {}), ("Flatten", [], {})]
NANS = [("Log", [], {}), ("Log", [], {})]
# What is written, what is said, and what the sentence has in it
REFUSED = {
    "two-inputs": ({"inputs": FURTHER}, {}, "one input, the photo; .* has 2: input.1, r1i"),
    "unknown-operator": ({"end": "Sharpen"}, {"output": "none"}, "operator that it does not know, Sharpen"),
    "no-mean": ({}, {"mean": None}, "Expected --mean and --std"),
    "two-means": ({}, {"mean": [1, 2]}, "one number for all channels, or three"),
    "any-size": ({"sides": ("h", "w")}, {}, r"Expected --size .* takes \(1, 3, \?, \?\)"),
    "other-size": ({}, {"size": (32, 32)}, "the size that .* was exported for"),
    "wrong-size": ({"sides": ("h", "w"), "tail": FIXED}, {"size": (32, 32)}, "32x32; .* multiples of 32"),
    "unknown-layout": ({"sides": (3, 3)}, {}, "Expected --layout NCHW or NHWC"),
    "wrong-layout": ({}, {"layout": "NHWC"}, "3 channels, RGB, as NHWC has them"),
    "no-such-layout": ({}, {"layout": "CHWN"}, "layout out of NCHW, NHWC"),
    "several-outputs": ({"extra": ["d1"]}, {}, "Expected --output-name, .* out of 1959, d1; .* has 2"),
    "wrong-output": ({}, {"output_name": "d9"}, "out of 1959; received 'd9'"),
    "logits": ({"end": None}, {}, "ends in Conv, .* on a sample photo they are from"),
    "clipped": ({"end": None, "tail": [("Clip", [np.float32(-9), np.float32(9)], {})]}, {}, "ends in Clip"),
    "out-of-range": ({"end": None}, {"output": "none"}, "from 0 to 1 without an output rule"),
    "twice": ({}, {"output": "sigmoid"}, "ends in Sigmoid. Leave it out"),
    "one-channel": ({"end": None}, {"output": "softmax"}, "gives one. Use sigmoid"),
    "four-channels": ({"channels": 4}, {}, "Expected --channel, .* gives 4"),
    "no-such-channel": ({"channels": 4}, {"channel": 4}, "--channel from 0 to 3"),
    "classes": ({"tail": GLOBAL}, {"output": "none"}, r"a map of the photo; .* gives \(1, 1\)"),
    "nan": ({"tail": NANS}, {"output": "none"}, "gives NaN or infinity"),
    "no-such-rule": ({}, {"output": "tanh"}, "output rule out of none, sigmoid"),
    "early-opset": ({"opset": 9}, {}, "opset 11 or later; .* has 9"),
    "doubles": ({"dtype": TensorProto.DOUBLE}, {}, "float32, float16, uint8; .* takes TensorProto.DOUBLE"),
    "no-batch": ({"batch": "n", "sides": (4,)}, {}, r"takes \(\?, 3, 4\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(tmp_path, name):
    written, said, sentence = REFUSED[name]
    path = onnx_files.write(tmp_path / "theirs.onnx", **written)
    with pytest.raises(MattingError, match=sentence) as raised:
        write_onnx_folder(path, tmp_path / "models" / "mine", Asked(**(HALVES | said)))
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.onnx"]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _as_page(path):
    path.write_text("<!DOCTYPE html><html>")


def _without_data(path):
    (path.parent / "weights.bin").unlink()


def _with_cut_data(path):
    (path.parent / "weights.bin").write_bytes(b"short")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), "does not exist or is no file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"\x08\x07"), "holds no network"),
        (_cut, "is damaged or none"),
        (_as_page, "it is a web page"),
        (_without_data, "there is no weights.bin. Copy or download all files"),
        (_with_cut_data, "data beside .*; received: "),
    ],
)
def test_a_damaged_file_is_one_sentence_and_the_folder_stays_as_it_was(tmp_path, capsys, damage, sentence):
    path, out = tmp_path / "theirs.onnx", tmp_path / "mine"
    onnx_files.write(path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    words = ["from-onnx", str(path), "--out", str(out), "--mean", "0.5,0.5,0.5", "--std", "0.5"]
    assert main(words) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    damage(path)
    capsys.readouterr()
    assert main([*words, "--force"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(sentence, told), told
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_network_that_no_file_can_hold_is_told_before_it_is_read(tmp_path, monkeypatch):
    path = onnx_files.write(tmp_path / "theirs.onnx", save_as_external_data=True, location="w", size_threshold=0)
    monkeypatch.setattr(foreign_onnx.reading, "_MOST_BYTES", path.stat().st_size + 1)
    with pytest.raises(UsageError, match="at most 2 GiB"):
        write_onnx_folder(path, tmp_path / "mine", Asked(**HALVES))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--mean", "1,2"], "expected one number or R,G,B"),
        (["--size", "12"], "expected HEIGHTxWIDTH"),
        (["--size", "0x0"], "argument --size: expected HEIGHTxWIDTH"),
    ],
)
def test_options_that_cannot_be_read_are_told(tmp_path, capsys, words, sentence):
    with pytest.raises(SystemExit):
        main(["from-onnx", "theirs.onnx", *words])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "received"),
    [
        (["--mean", "0", "--std", "1"], "--mean, --std"),
        (["--std", "0.003921569"], "--std"),
        (["--scale", "image-max"], "--scale image-max"),
    ],
)
def test_a_network_that_takes_bytes_takes_them_as_they_are(tmp_path, capsys, words, received):
    path = onnx_files.write(tmp_path / "theirs.onnx", dtype=onnx_files.TensorProto.UINT8)
    assert main(["from-onnx", str(path), "--out", str(tmp_path / "mine"), *words]) == 2
    told = capsys.readouterr().err
    assert f"takes uint8, a photo's values as they are; received {received}. Leave them out" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "mine").exists()


def test_a_name_is_no_path(tmp_path, capsys):
    assert main(["from-onnx", "theirs.onnx", "--name", "a/b"]) == 2
    assert "name without folders" in capsys.readouterr().err
