"""Raw frames, as programs pipe them into one another: each becomes a picture of its own, as with rembg's `b`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.errors import ImageError, UsageError
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos import marks
from keras_matting.photos.files import Photo
from keras_matting.photos.marks import Mark
from keras_matting.photos.output import encoded
from keras_matting.predict import FAILURES, Result, collect, fail

_CHANNELS = 3
_AHEAD = 2  # frames that wait to be written; each may have megapixels


def read_frames(stream: BinaryIO, width: int, height: int) -> Iterator[Photo]:
    """Yield the `Photo`s of a stream of 8-bit RGB frames, row by row, without anything between (ffmpeg's rgb24).

    Raises `ImageError` where the stream ends within a frame.
    """
    wanted = width * height * _CHANNELS
    while data := stream.read(wanted):
        if len(data) < wanted:
            raise ImageError(
                f"Expected {wanted:,} bytes, a frame of {width}x{height} in 8-bit RGB; received {len(data):,}, and the "
                "end. Check the size, and that the stream is rgb24."
            )
        yield Photo(np.frombuffer(data, np.uint8).reshape(height, width, _CHANNELS))


def target_of(pattern: str, index: int) -> str:
    """Return the file of a frame, `pattern` with the index in place of its `%d`, `%03d` or `%u`.

    Raises `UsageError` where the pattern has none, or more than that.
    """
    try:
        target = pattern % index
        is_pattern = target != pattern % (index + 1)
    except (TypeError, ValueError):
        is_pattern = False
    if not is_pattern:
        raise UsageError(f"Expected a pattern with one number, as frames/%04d.png; received {pattern!r}.")
    return target


def run(
    session: Session,
    frames: Iterable[Photo],
    options: OutputOptions,
    extension: str,
    write: Callable[[int, bytes], object],
) -> Iterator[Result]:
    """Matte frames and yield a `Result` for each, in order; `write` is called with its index and encoded picture.

    That happens in a thread of its own, one frame after another, so that it overlaps inference, and a frame of a live
    stream does not wait for the next. A frame fails alone. `frames` may raise `ImageError`: that is the last result.
    """
    mark, index = marks.made_by(session.preset, options), 0
    with ThreadPoolExecutor(1, "encode") as encoder:
        writing: deque[tuple[Result, Future[None]]] = deque()
        coming = iter(frames)
        while True:
            result = Result(f"frame {index}", None, "done")
            try:
                photo = next(coming, None)
                if photo is None:
                    break
                raw_matte = session.raw_matte(photo)
            except FAILURES as error:
                writing.append((result, encoder.submit(fail, error)))
                if isinstance(error, ImageError):  # the stream itself
                    break
            else:
                result.height, result.width = photo.rgb.shape[:2]
                encode = partial(_encode, session, photo, raw_matte, options, extension, mark)
                writing.append((result, encoder.submit(_write, result, encode, partial(write, index))))
            index += 1
            while writing and (len(writing) > _AHEAD or writing[0][1].done()):
                yield _finished(*writing.popleft())
        while writing:
            yield _finished(*writing.popleft())


def _encode(
    session: Session, photo: Photo, raw_matte: Float32, options: OutputOptions, extension: str, mark: Mark
) -> tuple[bytes, float]:
    """Return a frame's picture, encoded, and its confidence."""
    finished = session.finish(photo, raw_matte, options)
    return encoded(finished, photo, options, extension, mark), finished.confidence


def _write(result: Result, encode: Callable[[], tuple[bytes, float]], write: Callable[[bytes], object]) -> None:
    data, confidence = encode()
    write(data)
    result.confidence = confidence  # of what is there


def _finished(result: Result, writing: Future[None]) -> Result:
    """Return the result of a frame; raises `BrokenPipeError` where nobody takes what is written any more."""
    if isinstance(error := writing.exception(), BrokenPipeError):
        raise error
    return collect(result, writing)
