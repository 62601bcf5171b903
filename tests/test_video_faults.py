"""What cannot be matted or written as video: one sentence each, nothing half-made; and clips that are damaged."""

import os
import sys
import threading

import av
import clips
import numpy as np
import pytest
from clips import Read, write_clip
from PIL import Image

from keras_matting import machine
from keras_matting.cli import main
from keras_matting.errors import EngineError, ImageError, UsageError
from keras_matting.matting import OutputOptions, Session
from keras_matting.video import writing
from keras_matting.video.reading import Clip
from keras_matting.video.run import matte_video, plan, run


@pytest.fixture
def fail(capfd, tmp_path, monkeypatch, one_layer_dir):
    """Run `keras-matting video` with words in a folder of files of every kind; return what it says, one sentence."""
    monkeypatch.chdir(tmp_path)

    def fail(*words):
        before = contents(tmp_path)
        model = ("--model", str(one_layer_dir), "--engine", "onnx-cpu")
        assert main(["video", *words, *([] if "--model" in words else model)]) == 2
        out, err = capfd.readouterr()
        assert (out, "Traceback" in err, err.count("\n")) == ("", False, 1)
        assert contents(tmp_path) == before
        return err

    return fail


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def write_sound_only(path):
    with av.open(str(path), "w") as container:
        clips.write_sound(container, container.add_stream("aac", rate=48000), seconds=0.1)


def write_without_frames(path):
    """Write a clip whose packets are all wiped out."""
    write_clip(path)
    data = bytearray(path.read_bytes())
    for position, size in clips.positions(path):
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.mp4", "x.webm"], "Expected a video at nowhere.mp4; received: No such file"),
        (["", "x.webm"], "received an empty name"),
        (["folder", "x.webm"], "folder is a folder"),
        (["text.mp4", "x.webm"], "text.mp4 cannot be read as one"),
        (["empty.mp4", "x.webm"], "empty.mp4 cannot be read as one"),
        (["cut.mp4", "x.webm"], "cut.mp4 cannot be read as one"),
        (["photo.png", "x.webm"], "photo.png is a picture. Use keras-matting predict"),
        (["photo.gif.jpg", "x.webm"], "is a picture. Use keras-matting predict"),
        (["photo.avif", "x.webm"], "photo.avif is a picture"),
        (["sound.m4a", "x.webm"], "sound.m4a has sound only"),
        (["blank.mp4", "x.webm"], "no frame of blank.mp4 can be decoded"),
        (["clip.mp4", "x.mp4"], "MP4 (H.264) has no transparency"),
        (["nowhere.mp4", "x.mp4"], "MP4 (H.264) has no transparency"),  # said before anything is read
        (["clip.mp4", "x.webm", "--output", "matte16"], "A 16-bit matte needs a folder of PNGs"),
        (["clip.mp4", "x.avi"], "Expected an output of .webm, .mov, .mp4, .m4v, or a folder for PNGs; received x.avi"),
        (["clip.mp4", "there.webm"], "there.webm exists; add --overwrite"),
        (["clip.mp4", "clip.mp4", "--output", "mask", "--overwrite"], "would overwrite the clip"),
        (["clip.mp4", "./folder/../clip.mp4", "--output", "mask"], "would overwrite the clip"),
        (["folder/inside.mp4", "folder", "--overwrite"], "would overwrite the clip"),
        (["clip.mp4", "folder"], "folder exists; add --overwrite"),
        (["clip.mp4", "folder", "--overwrite"], "folder has no timestamps.txt"),
        (["clip.mp4", "-"], "received -, and clips do not go to standard output"),
        (["clip.mp4", "file"], "file is a file"),
        (["clip.mp4", "folder.webm"], "folder.webm is a folder"),
        (["clip.mp4", "file/x.webm"], "Expected to write into"),
        (["clip.mp4", "x.mp4", "--background", "1,2"], "a colour as R,G,B"),
        (["clip.mp4", "x.mp4", "--background", "nowhere.jpg"], "Expected a photo at nowhere.jpg"),
        (["clip.mp4", "x.mp4", "--background", "text.mp4"], "Background text.mp4: Expected"),
        (["clip.mp4", "x.mp4", "--background", "0,0,0", "--output", "mask"], "give one of the two"),
        (["clip.mp4", "x.mp4", "--output", "psd"], "received 'psd'"),
        (["clip.mp4", "x.webm", "--model", "u3net"], "received 'u3net'"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_sentence(fail, tmp_path, write_photo, words, message):
    write_clip(tmp_path / "clip.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:500])
    for name in ("folder", "folder.webm"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "folder" / "inside.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("empty.mp4", "there.webm", "file"):
        (tmp_path / name).write_bytes(b"")
    write_photo(tmp_path / "photo.png")
    write_photo(tmp_path / "photo.jpg").rename(tmp_path / "photo.gif.jpg")
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.avif")  # which FFmpeg takes for a clip of one frame
    write_sound_only(tmp_path / "sound.m4a")
    write_without_frames(tmp_path / "blank.mp4")
    if "file/x.webm" in words:  # the engine is opened before
        with pytest.raises(UsageError, match=message):
            plan_and_run(*words)
    else:
        assert message in fail(*words)


def write_frames(folder):
    """Write what a folder of PNGs holds."""
    folder.mkdir()
    (folder / "timestamps.txt").write_text("# timestamp format v2\n0.000\n")
    (folder / "000001.png").write_bytes(b"")


@pytest.mark.parametrize("foreign", ["background.jpg", "1.png", "sub", "000002.png", "timestamps.txt"])
def test_a_folder_with_anything_of_somebody_else_is_not_replaced(fail, tmp_path, foreign):
    write_clip(tmp_path / "clip.mp4")
    write_frames(tmp_path / "frames")
    plan("clip.mp4", tmp_path / "frames", overwrite=True)  # as it is, it is replaced
    if foreign in ("sub", "000002.png"):
        (tmp_path / "frames" / foreign).mkdir()
        (tmp_path / "frames" / foreign / "precious.txt").write_text("mine")
    else:
        (tmp_path / "frames" / foreign).write_text("mine")
    message = fail("clip.mp4", "frames", "--overwrite")
    assert "frames ha" in message if foreign == "timestamps.txt" else f"frames holds {foreign}" in message


def plan_and_run(source, target):
    with Clip(source) as clip:
        run(None, clip, plan(source, target))


def test_without_pyav_its_extra_is_named(fail, monkeypatch, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert "pip install 'keras-matting[video]'" in fail("clip.mp4", "x.webm")


def test_an_output_without_a_background_gets_none():
    with pytest.raises(UsageError, match="for a background; received mask"):
        matte_video("a.mp4", "x.webm", output="mask", background=(1, 2, 3))


def test_another_smoothing_is_refused():
    with pytest.raises(UsageError, match="out of off, ofd; received 'median'"):
        plan("a.mp4", "x.webm", smooth="median")


def test_a_clip_is_not_cropped():
    with pytest.raises(UsageError, match="A clip keeps its frame"):
        plan("a.mp4", "x.webm", OutputOptions(crop=True))


def test_a_link_to_the_clip_is_the_clip(tmp_path):
    source = write_clip(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to(source)
    with pytest.raises(UsageError, match="would overwrite the clip"):
        plan(source, tmp_path / "b.mp4", OutputOptions("mask"), overwrite=True)


def test_a_playlist_reaches_no_network(tmp_path):
    playlist = tmp_path / "a.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ImageError, match="a.mp4 cannot be read as one"):
        Clip(playlist)


class Stopping:
    """Raises `error` at a late frame: by then the encoders have written some of the earlier ones."""

    def __init__(self, error):
        self.error = error

    def __call__(self, count):
        if count == 38:
            raise self.error


@pytest.mark.parametrize("name", ["x.webm", "x.mov", "x.mp4", "frames"])
@pytest.mark.parametrize("there_before", [False, True])
def test_an_interrupted_run_leaves_what_was_there(tmp_path, one_layer_dir, name, there_before):
    source, kind = write_clip(tmp_path / "a.mp4", pts=range(40), sound="aac"), OutputOptions("mask")
    with Session(one_layer_dir, "onnx-cpu") as session:
        if there_before:
            with Clip(source) as clip:
                run(session, clip, plan(source, tmp_path / name, kind))
        before, threads = contents(tmp_path), set(threading.enumerate())
        with Clip(source) as clip, pytest.raises(KeyboardInterrupt):
            run(session, clip, plan(source, tmp_path / name, kind, overwrite=True), Stopping(KeyboardInterrupt()))
    assert contents(tmp_path) == before
    assert set(threading.enumerate()) == threads


class BrokenEngine:
    """Fails at its second batch."""

    name, size = "broken", (64, 64)

    def __init__(self):
        self.calls = 0

    def predict(self, batch):
        self.calls += 1
        if self.calls > 1:
            raise EngineError("Engine broken is broken.")
        return np.zeros((len(batch), 64, 64, 1), np.float32)

    def close(self):
        pass


def test_an_engine_that_fails_is_told_and_nothing_is_left(tmp_path, one_layer_dir):
    source = write_clip(tmp_path / "a.mp4", pts=range(20))
    with (
        Session(one_layer_dir, BrokenEngine()) as session,
        Clip(source) as clip,
        pytest.raises(EngineError, match="is broken"),
    ):
        run(session, clip, plan(source, tmp_path / "x.webm"))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_sentence(tmp_path, one_layer_dir, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def full(path):
        try:
            (tmp_path / "full").symlink_to("/dev/full")
            yield tmp_path / "full"
        except OSError as error:
            raise UsageError(f"Expected to write {path}; received: {error.strerror}.") from None

    monkeypatch.setattr(writing, "replaced_file", full)
    source = write_clip(tmp_path / "a.mp4", pts=range(4))
    with (
        Session(one_layer_dir, "onnx-cpu") as session,
        Clip(source) as clip,
        pytest.raises(UsageError, match="No space left"),
    ):
        run(session, clip, plan(source, tmp_path / "x.webm", OutputOptions("mask")))
    assert not os.path.lexists(tmp_path / "x.webm")


def damaged(path, index, size=(96, 128)):
    """Write a clip of noise and wipe out the packet of one frame."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(8)]
    write_clip(path, pts=range(8), size=size, images=images, options={"g": "2"})
    position, length = clips.positions(path)[index]
    data = bytearray(path.read_bytes())
    data[position : position + length] = bytes(length)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("index", [0, 3, 7])
def test_a_damaged_frame_is_counted_and_the_rest_goes_on(tmp_path, one_layer_dir, capfd, index):
    source = damaged(tmp_path / "a.mp4", index)
    words = [source, tmp_path / "x.webm", "--model", one_layer_dir, "--engine", "onnx-cpu"]
    assert main(["video", *map(str, words)]) == 1
    assert "1 damaged and left out" in capfd.readouterr().err
    times = [time for number, time in enumerate(np.arange(8) / 30) if number != index]
    assert Read(tmp_path / "x.webm").times == pytest.approx(times, abs=0.001)


def test_a_frame_that_the_decoder_repairs_is_shown_and_counted(tmp_path, one_layer_dir):
    source = damaged(tmp_path / "a.mp4", 3)
    write_clip(source, pts=range(8), size=(96, 128), options={"g": "8"})
    position, length = clips.positions(source)[3]
    data = bytearray(source.read_bytes())
    data[position + length // 2 : position + length : 7] = bytes(len(range(length // 2, length, 7)))
    source.write_bytes(data)
    with Session(one_layer_dir, "onnx-cpu") as session, Clip(source) as clip:
        result = run(session, clip, plan(source, tmp_path / "x.webm"))
    assert result.frames + result.damaged == 8
    assert result.repaired + result.damaged > 0


@pytest.mark.parametrize(
    ("source", "sound"), [("a.mkv", None), ("a.mkv", "aac"), ("a.webm", "libopus"), ("a.mov", None)]
)
def test_a_file_that_is_cut_off_is_matted_as_far_as_it_goes(tmp_path, one_layer_dir, capfd, source, sound):
    options, header = {"g": "4"}, {"movflags": "+faststart"} if source == "a.mov" else {}
    whole = write_clip(tmp_path / source, pts=range(20), sound=sound, options=options, container_options=header)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 4 // 5])
    words = [whole, tmp_path / "x.webm", "--model", one_layer_dir, "--engine", "onnx-cpu"]
    assert main(["video", *map(str, words)]) == 1
    assert "the clip is cut off" in capfd.readouterr().err
    assert 0 < len(Read(tmp_path / "x.webm").images) < 20


@pytest.mark.parametrize(("pts", "sound_s"), [((0, 1, 2, 3), 1), ((0, 20, 40), None), ((0,), None)])
def test_a_whole_file_is_not_cut_off_however_long_its_sound_or_its_frames_are(tmp_path, pts, sound_s):
    source = write_clip(tmp_path / "a.mkv", pts=pts, sound="aac" if sound_s else None, sound_s=sound_s)
    with Clip(source) as clip:
        assert len(list(clip.frames())) == len(pts)
        assert not clip.is_cut_off
