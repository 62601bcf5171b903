"""`predict --raw`: a stream of raw frames to pictures, as rembg's `b` makes them."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from keras_matting import raw_frames
from keras_matting.cli import main
from keras_matting.errors import EngineError, UsageError
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos.files import Photo, decode

WIDTH, HEIGHT = 40, 24
FRAMES = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def predict(one_layer_dir, monkeypatch, tmp_path, capfdbinary):
    """Run `predict --raw` on a stream; return (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def predict(data, *words, source="-"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        engine = ["--model", str(one_layer_dir), "--engine", "onnx-cpu"]
        status = main(["predict", source, *words, "--raw", f"{WIDTH}x{HEIGHT}", *engine])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return predict


@pytest.fixture
def expected(one_layer_dir):
    """The cut-outs of the frames."""
    with Session(one_layer_dir, "onnx-cpu") as session:
        return [session.matte(Photo(frame)) for frame in FRAMES]


def pictures(data):
    """Return the pictures of PNGs one after another."""
    return [read(b"\x89PNG" + part) for part in data.split(b"\x89PNG")[1:]]


def read(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


@pytest.mark.parametrize("output", [[], ["-"]])
def test_frames_become_pictures_on_standard_output_in_order(predict, expected, output):
    status, out, err = predict(FRAMES.tobytes(), *output)
    assert status == 0
    assert all((one == other).all() for one, other in zip(pictures(out), expected, strict=True))
    assert "3 done" in err


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("out/f-%03d.png", ["f-000.png", "f-001.png", "f-002.png"]),
        ("out/%u.png", ["0.png", "1.png", "2.png"]),
        ("out", ["000000.png", "000001.png", "000002.png"]),
    ],
)
def test_frames_become_files_of_a_pattern(predict, expected, tmp_path, output, names):
    assert predict(FRAMES.tobytes(), output)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name, picture in zip(names, expected, strict=True):
        np.testing.assert_array_equal(read((tmp_path / "out" / name).read_bytes()), picture)


def test_frames_are_read_from_a_file(predict, tmp_path):
    (tmp_path / "frames.rgb").write_bytes(FRAMES.tobytes())
    assert predict(b"", "out", "--output", "mask", source="frames.rgb")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_outputs_are_of_the_kind_and_format_that_is_asked_for(predict):
    status, out, _ = predict(FRAMES[:1].tobytes(), "-", "--output", "on-color", "0,0,0", "--format", "jpg")
    assert (status, decode(out).rgb.shape, out[:2]) == (0, FRAMES.shape[1:], b"\xff\xd8")


def test_a_stream_that_ends_within_a_frame_is_told_and_whole_frames_are_kept(predict, tmp_path):
    status, _, err = predict(FRAMES.tobytes()[:-5], "out")
    assert status == 1
    assert f"failed: frame 2: Expected 2,880 bytes, a frame of {WIDTH}x{HEIGHT} in 8-bit RGB; received 2,875" in err
    assert "2 done, 1 failed" in err
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_files_of_somebody_else_s_are_replaced_only_with_overwrite(predict, tmp_path):
    (tmp_path / "1.png").write_bytes(b"theirs")
    status, _, err = predict(FRAMES.tobytes(), "%d.png")
    assert (status, (tmp_path / "1.png").read_bytes()) == (1, b"theirs")
    assert "failed: frame 1: 1.png exists. Add --overwrite" in err
    assert predict(FRAMES.tobytes(), "%d.png", "--overwrite")[0] == 0


def test_frames_of_another_stream_are_replaced_only_with_overwrite_and_those_that_stay_are_told(predict, tmp_path):
    assert predict(FRAMES.tobytes(), "%d.png")[0] == 0
    before = (tmp_path / "0.png").read_bytes()
    status, _, err = predict(FRAMES[1:2].tobytes(), "%d.png")
    assert (status, (tmp_path / "0.png").read_bytes()) == (2, before)
    assert "0.png exists. Add --overwrite, or choose another pattern." in err
    status, _, err = predict(FRAMES[1:2].tobytes(), "%d.png", "--overwrite")
    assert (status, (tmp_path / "0.png").read_bytes() != before) == (0, True)
    assert "frames of an earlier run are still there, from 1.png on" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["out.png"], "Expected a pattern with one number, as frames/%04d.png; received 'out.png'"),
        (["%d-%d.png"], "received '%d-%d.png'"),
        (["%s%%.gif", "--quiet"], "Expected"),
        (["%d.gif"], ".gif"),
        (["%d.jpg"], "JPEG has no transparency"),
        (["out", "--report", "r"], "--report and --resume are for photos in files"),
        (["out", "--resume"], "--report and --resume are for photos in files"),
        (["out", "--max-megapixels", "0.0001"], "at most 0.0001 megapixels; received 40x24"),
        (["out"], "Expected frames; received an empty stream"),
    ],
)
def test_what_cannot_be_is_one_sentence(predict, tmp_path, words, sentence):
    status, out, err = predict(b"" if words == ["out"] else FRAMES.tobytes(), *words)
    assert (status, out) == (2, b"")
    assert sentence in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_told(predict):
    assert predict(b"", source="none.rgb")[::2] == (
        2,
        "keras-matting: Expected raw frames at none.rgb; received: No such file or directory.\n",
    )


@pytest.mark.parametrize("size", ["40", "0x10", "axb"])
def test_a_size_that_cannot_be_read_is_told(capsys, size):
    with pytest.raises(SystemExit):
        main(["predict", "-", "--raw", size])
    assert "expected WIDTHxHEIGHT, as 1280x720" in capsys.readouterr().err


def test_a_frame_that_the_engine_cannot_compute_fails_alone(one_layer_dir):
    written = {}
    with Session(one_layer_dir, "onnx-cpu") as session:
        whole, session.predict = session.predict, None
        calls = iter((False, True, False))

        def sometimes(batch):
            if next(calls):
                raise EngineError("out of memory")
            return whole(batch)

        session.predict = sometimes
        results = list(raw_frames.run(session, map(Photo, FRAMES), OutputOptions(), ".png", written.setdefault))
    assert [(one.status, one.error) for one in results] == [("done", None), ("failed", "out of memory"), ("done", None)]
    assert sorted(written) == [0, 2]


def test_a_frame_is_written_before_the_next_one_comes(one_layer_dir):
    """A camera's frames are seen at once."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "keras_matting", "predict", "-", "-", "--raw", f"{WIDTH}x{HEIGHT}"]
    command += ["--model", str(one_layer_dir), "--engine", "onnx-cpu", "--quiet"]
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(reading)
        with os.fdopen(writing, "wb") as stream:
            stream.write(FRAMES[0].tobytes())
            stream.flush()
            assert process.stdout.read(8) == b"\x89PNG\r\n\x1a\n"
        rest = process.stdout.read()
        assert process.wait() == 0, process.stderr.read()
    assert read(b"\x89PNG\r\n\x1a\n" + rest).shape == (HEIGHT, WIDTH, 4)


def test_who_takes_no_more_pictures_ends_the_run(one_layer_dir):
    def write(index, data):
        raise BrokenPipeError

    with Session(one_layer_dir, "onnx-cpu") as session, pytest.raises(BrokenPipeError):
        list(raw_frames.run(session, map(Photo, FRAMES), OutputOptions(), ".png", write))


def test_a_pattern_s_number_stands_once():
    assert raw_frames.target_of("50%%/%03d.png", 7) == "50%/007.png"
    with pytest.raises(UsageError, match="Expected a pattern"):
        raw_frames.target_of("%(index)d.png", 7)
