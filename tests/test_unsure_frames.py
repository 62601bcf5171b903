"""Clips and streams of frames: where somebody should look is told by stretches, not by frames."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from clips import write_clip

import keras_matting
from keras_matting.cli import main
from keras_matting.photos.stretches import Stretch, Stretches

SIZE = 48, 64
SURE, UNSURE, NONE = 200, 132, 20  # of red, as the model in these tests takes it


def frame(red):
    """Return a frame, uint8 (H, W, 3), of a disc that is so red."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = np.hypot(rows - 24, columns - 32) < 15
    return np.where(disc[..., None], (red, 40, 30), (20, 40, 30)).astype(np.uint8)


@pytest.fixture
def clip(tmp_path):
    """Write a clip of frames that are so red, `seconds` apart; return its path."""

    def clip(*reds, seconds=0.1):
        images, pts = [frame(red) for red in reds], [round(30 * seconds * index) for index in range(len(reds))]
        return write_clip(tmp_path / "a.mp4", images=images, pts=pts)

    return clip


@pytest.fixture
def told(red_model_dir, capfd):
    """Run a verb; return the lines of standard error from "look at" on."""

    def told(*words):
        assert main([*map(str, words), "--model", str(red_model_dir), "--engine", "onnx-cpu", "--quiet"]) == 0
        lines = capfd.readouterr().err.splitlines()
        return [line for line in lines if line.startswith(("look", "  "))]

    return told


def test_frames_that_are_near_each_other_are_one_stretch_with_the_least_confidence():
    stretches = Stretches(gap=0.5)
    for position, confidence in ((0, 0.8), (0.4, 0.6), (0.6, 0.95), (0.9, 0.7), (1.5, 0.5), (9, 0.9)):
        stretches.add(position, confidence)
    assert stretches.worst_first == (Stretch(1.5, 1.5, 1, 0.5), Stretch(0, 0.9, 3, 0.6))


def test_a_clip_s_run_ends_with_where_to_look(told, clip, tmp_path):
    source = clip(SURE, UNSURE, UNSURE, *[SURE] * 7, NONE, SURE)
    first, second, third = told("video", source, tmp_path / "x.mp4", "--output", "mask", "--smooth", "off")
    assert first == "look at 3 of 12 frames, the least sure first:"
    assert second == "  at 0:01.0: nothing was taken"
    assert third.startswith("  0:00.1 to 0:00.2, 2 frames: confidence 0.")


def test_times_are_those_of_players(told, clip, tmp_path):
    source = clip(SURE, SURE, NONE, SURE, seconds=1830.06)
    lines = told("video", source, tmp_path / "x.mp4", "--output", "mask", "--smooth", "off")
    assert lines[1] == "  at 1:01:00.1: nothing was taken"


def test_from_python_a_clip_s_result_has_where_to_look(red_model_dir, clip, tmp_path):
    found = [
        keras_matting.matte_video(clip(*reds), tmp_path / name, red_model_dir, "onnx-cpu", output="mask").to_look_at
        for name, reds in (("x.mp4", [SURE] * 3), ("y.mp4", [NONE] * 3))
    ]
    assert found == [(), (Stretch(0, 0.2, 3, 0.0),)]


def test_of_a_clip_sure_throughout_there_is_nothing_to_look_at(told, clip, tmp_path):
    assert told("video", clip(*[SURE] * 4), tmp_path / "x.mp4", "--output", "mask") == []


@pytest.mark.parametrize("output", ["frames", "-"])
def test_a_stream_of_raw_frames_ends_with_where_to_look(told, monkeypatch, tmp_path, output):
    monkeypatch.chdir(tmp_path)
    reds = [UNSURE] * 3 + [SURE] * 30 + [NONE] + [SURE] * 20 + [UNSURE, SURE] * 4
    stream = io.BytesIO(b"".join(frame(red).tobytes() for red in reds))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    lines = told("predict", "-", output, "--raw", f"{SIZE[1]}x{SIZE[0]}")
    assert lines[:2] == ["look at 8 of 62 frames, the least sure first:", "  frame 33: nothing was taken"]
    assert [line.split(":")[0] for line in lines[2:]] == ["  frames 0 to 2", "  frames 54 to 60"]


def test_of_many_stretches_the_least_sure_are_named_and_the_others_counted(told, clip, tmp_path):
    source = clip(*[NONE, SURE] * 8, seconds=1)
    lines = told("video", source, tmp_path / "x.mp4", "--output", "mask", "--smooth", "off")
    assert len(lines) == 7 and lines[-1] == "  and 3 more such places"
