"""Stages that overlap, batches, smoothing, and the progress of long runs."""

import threading

import numpy as np
import pytest
from clips import picture, write_clip
from waiting import wait_until

from keras_matting.cli import video
from keras_matting.errors import EngineError
from keras_matting.matting import Session
from keras_matting.photos.files import Photo
from keras_matting.video.pipeline import DEPTH, BatchSizes, ahead, in_order
from keras_matting.video.reading import Clip, Frame
from keras_matting.video.run import plan, run
from keras_matting.video.smoothing import one_frame_delay


def counting(count, seen):
    for number in range(count):
        seen.append(number)
        yield number


def test_a_stage_runs_ahead_as_far_as_its_queue_and_no_further():
    seen = []
    stage = ahead(counting(100, seen), depth=3)
    assert next(stage) == 0
    wait_until(lambda: len(seen) == 1 + 3 + 1)  # one is taken, three wait, one is on its way
    assert list(stage) == list(range(1, 100))
    assert len(seen) == 100


def test_a_stage_that_fails_fails_where_it_is_read():
    def failing():
        yield 1
        raise EngineError("broken")

    stage = ahead(failing())
    assert next(stage) == 1
    with pytest.raises(EngineError, match="broken"):
        next(stage)


def test_a_stage_that_is_closed_closes_those_before_it_and_leaves_no_thread():
    closed, threads = [], set(threading.enumerate())

    def endless(name):
        try:
            while True:
                yield name
        finally:
            closed.append(name)

    def passed_on(items):
        try:
            yield from items
        finally:
            items.close()
            closed.append("second")

    stage = in_order(str, ahead(passed_on(ahead(endless("first")))), workers=2)
    assert next(stage) == "first"
    stage.close()
    assert closed == ["first", "second"]
    assert set(threading.enumerate()) == threads


def test_what_is_computed_side_by_side_stays_in_order():
    first_is_held = threading.Event()

    def compute(number):
        if number == 0:
            assert first_is_held.wait(60)  # until the second is done
        elif number == 1:
            first_is_held.set()
        return -number

    assert list(in_order(compute, counting(6, []), workers=2)) == [0, -1, -2, -3, -4, -5]


class Counted:
    """An engine that notes its batches; `largest` is what it takes."""

    name, size = "counted", (64, 64)

    def __init__(self, largest=16):
        self.largest, self.batches = largest, []

    def predict(self, batch):
        if len(batch) > self.largest:
            raise EngineError("one at a time")
        self.batches.append(len(batch))
        return np.full((len(batch), 64, 64, 1), 0.5, np.float32)

    def close(self):
        pass


def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path, one_layer_dir, monkeypatch):
    source, read, most = write_clip(tmp_path / "a.mp4", pts=range(120)), [], []
    frames = Clip.frames

    def counted(self):
        for frame in frames(self):
            read.append(frame.pts)
            yield frame

    monkeypatch.setattr(Clip, "frames", counted)
    with Session(one_layer_dir, Counted()) as session, Clip(source) as clip:
        job = plan(source, tmp_path / "x.webm")
        result = run(session, clip, job, lambda count: most.append(len(read) - count))
    assert result.frames == 120
    # Two queues, what stands between them, a batch, the window of smoothing, and the renderers.
    assert max(most) <= 2 * (DEPTH + 1) + 4 + 3 + 5 + 1


def test_an_engine_that_takes_single_photos_only_gets_them(tmp_path, one_layer_dir):
    source = write_clip(tmp_path / "a.mp4", pts=range(12))
    with Session(one_layer_dir, Counted(largest=1)) as session, Clip(source) as clip:
        assert run(session, clip, plan(source, tmp_path / "x.webm")).frames == 12
        assert session.engine.batches == [1] * 12


def test_every_frame_is_inferred_once_whatever_the_batches(tmp_path, one_layer_dir):
    source = write_clip(tmp_path / "a.mp4", pts=range(13))
    with Session(one_layer_dir, Counted()) as session, Clip(source) as clip:
        assert run(session, clip, plan(source, tmp_path / "x.webm")).frames == 13
        assert sum(session.engine.batches) == 13
        assert session.engine.batches[:4] == [1, 1, 4, 4]


@pytest.mark.parametrize(("of_four", "chosen"), [(2.0, 4), (3.9, 1), (8.0, 1)])
def test_a_batch_is_taken_where_the_engine_gains_by_it(of_four, chosen):
    sizes = BatchSizes()
    for seconds in (9, 1, 9, of_four):  # the first of each warms up
        sizes.add(sizes.current, seconds)
    assert sizes.current == chosen
    sizes.add(4, 100)
    assert sizes.current == chosen


def clip_of(photos, mattes):
    return [
        (Frame(Photo(photo), index, 1), np.float32(matte)[..., None])
        for index, (photo, matte) in enumerate(zip(photos, mattes, strict=True))
    ]


def smoothed(photos, mattes):
    return np.stack([matte[..., 0] for _, matte in one_frame_delay(clip_of(photos, mattes))])


def moving(count=12, size=(64, 96)):
    """Return (photos, alphas) of a disc that moves over a still ground, four pixels a frame."""
    photos = np.stack([picture(4 * index, size) for index in range(count)])
    return photos, np.float32(photos[..., 0] > 100)


def test_flicker_is_at_least_halved_and_the_error_falls():
    photos, alphas = moving()
    random = np.random.default_rng(0)
    mattes = np.clip(alphas * 0.98 + 0.01, 0, 1)
    for index in (2, 5, 8):
        mattes[index] = np.clip(mattes[index] + random.uniform(-0.6, 0.6, mattes[index].shape), 0, 1)
    still = (photos[1:] == photos[:-1]).all(-1)
    result = smoothed(photos, mattes)
    assert np.abs(np.diff(result, axis=0))[still].mean() < 0.5 * np.abs(np.diff(mattes, axis=0))[still].mean()
    assert np.abs(result - alphas).mean() < np.abs(mattes - alphas).mean()


def test_a_matte_of_what_moves_is_left_alone():
    photos, alphas = moving()
    thin = np.float32(np.arange(96)[None, None] == 8 * np.arange(12)[:, None, None]).repeat(64, axis=1)
    photos = np.where(thin[..., None] > 0, 255, photos).astype(np.uint8)
    mattes = np.maximum(alphas, thin)
    moved = (np.abs(photos[2:].astype(int) - photos[:-2]).max(-1) > 0)[:, 8:-8, 8:-8]
    changed = (smoothed(photos, mattes) != mattes)[1:-1, 8:-8, 8:-8]
    assert moved.any() and not (changed & moved).any()


def test_what_changes_and_stays_is_no_flicker():
    photos = [picture(0)] * 6
    mattes = np.zeros((6, 48, 64))
    mattes[3:] = 1
    np.testing.assert_array_equal(smoothed(photos, mattes), mattes)


def test_what_differs_little_is_no_flicker():
    mattes = np.zeros((3, 48, 64))
    mattes[1] = 0.04
    np.testing.assert_array_equal(smoothed([picture(0)] * 3, mattes), np.float32(mattes))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_smoothing_keeps_every_frame_in_its_place(count):
    pairs = clip_of([picture(index) for index in range(count)], np.zeros((count, 48, 64)))
    assert [frame.pts for frame, _ in one_frame_delay(pairs)] == list(range(count))


def test_smoothing_can_be_left_out(tmp_path, one_layer_dir, monkeypatch):
    calls = []
    monkeypatch.setattr("keras_matting.video.run.one_frame_delay", lambda pairs: calls.append(1) or pairs)
    source = write_clip(tmp_path / "a.mp4")
    for smooth in ("off", "ofd"):
        with Session(one_layer_dir, Counted()) as session, Clip(source) as clip:
            run(session, clip, plan(source, tmp_path / f"{smooth}.webm", smooth=smooth))
    assert calls == [1]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("total", "lines"),
    [
        (90, ["frame 30 of about 90, 1.0 frames/s, 01:00 left", "frame 60 of about 90, 1.0 frames/s, 00:30 left"]),
        (None, ["frame 30, 1.0 frames/s", "frame 60, 1.0 frames/s"]),
    ],
)
def test_a_log_file_gets_a_line_every_half_minute(total, lines):
    said, clock = [], Clock()
    with video.Progress(total, say_line=said.append, clock=clock) as progress:
        for count in range(1, 80):
            clock.now += 1
            progress.update(count)
    assert said == lines


def test_quiet_says_nothing():
    said, clock = [], Clock()
    with video.Progress(90, quiet=True, say_line=said.append, clock=clock) as progress:
        clock.now += 1000
        progress.update(1)
    assert said == []
