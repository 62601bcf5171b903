"""Many photos: what to read and write, and a pipeline in which decoding and encoding overlap inference."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeAlias

import cv2

from keras_matting.arrays import Float32
from keras_matting.errors import ImageError, MattingError, UsageError, first_line
from keras_matting.files import StrPath, require_no_stream, write_atomically
from keras_matting.machine import usable_cores
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos import files as photo_files
from keras_matting.photos import footprint, marks
from keras_matting.photos.confidence import is_unsure
from keras_matting.photos.files import Photo
from keras_matting.photos.folders import (
    PICTURES,
    LeftOut,
    Listing,
    extension_of,
    is_glob,
    list_folder,
    list_glob,
    none_found,
)
from keras_matting.photos.given import read_file
from keras_matting.photos.marks import Mark
from keras_matting.photos.naming import outputs
from keras_matting.photos.output import encoded

MAX_WORKERS = 4  # of each kind; each holds a photo of up to 150 megapixels
FAILURES = (MattingError, cv2.error, MemoryError, OSError, ValueError)

_Decoded: TypeAlias = tuple[Photo, Float32, Mark, float]  # photo, model input, its output's mark, milliseconds


@dataclass(frozen=True)
class Task:
    """One photo to read and the file to write."""

    source: Path
    target: Path


@dataclass
class Result:
    """What became of one photo: times in milliseconds, sizes in pixels.

    `status`: "done", "skipped", "failed", or "kept": an output that is there and not as we made it, in a run that goes
    on (`error` says why); of what is not read "left out". `anew`: why an output that was there was not skipped. `box`:
    where the subject is in the upright photo, of outputs that are framed. `confidence`: of what was done or skipped, as
    `photos.confidence` counts it, from 0 (nothing was taken) to 1.
    """

    input: str
    output: str | None
    status: str
    error: str | None = None
    anew: str | None = None
    width: int | None = None
    height: int | None = None
    box: dict[str, int] | None = None
    confidence: float | None = None
    decode_ms: float | None = None
    infer_ms: float | None = None
    encode_ms: float | None = None

    @property
    def is_unsure(self) -> bool:
        """Whether somebody should look at the output."""
        return is_unsure(self.confidence)

    def as_json(self) -> str:
        """Return one line of JSON without the fields that do not apply."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})


def plan(
    source: StrPath, target: StrPath, extension: str, on_left_out: Callable[[Listing], object] = lambda listing: None
) -> list[Task]:
    """Return the `Task`s for INPUT and OUTPUT as the command line takes them.

    `source`: a file, a folder (its tree is kept), or a glob. `target`: a file with an image's extension if `source` is
    one file, else a folder; photos in that folder are not read, so that a run can be repeated. `extension` (".png") is
    that of outputs in folders. Photos that would share an output keep their own extension in its name. `on_left_out`
    is called with the `Listing` of a folder or glob. Raises `UsageError` if there is no photo or an output would
    overwrite one.
    """
    source, target = str(source), Path(target)
    if not source:
        raise UsageError("Expected a photo, a folder or a glob; received an empty name.")
    path = Path(source)
    one_file = path.exists() and not path.is_dir()
    known = extension_of(target.name) in PICTURES
    if known and not target.is_dir():
        if not one_file or target.suffix.lower() not in photo_files.ENCODABLE:
            expected = f"a file of {', '.join(photo_files.ENCODABLE)}" if one_file else "an output folder"
            raise UsageError(f"Expected {expected}; received {target}.")
        tasks = [Task(path, target)]
    else:
        if target.exists() and not target.is_dir():
            raise UsageError(f"Expected an output folder; {target} is a file.")
        listing = Listing(path.parent, (path,))
        if not one_file:
            listing = find_photos(source, target)
            on_left_out(listing)
        targets = outputs(listing.root, listing.photos, target, extension)
        tasks = [Task(*pair) for pair in zip(listing.photos, targets, strict=True)]
    read = {task.source.resolve() for task in tasks}
    for task in tasks:
        if task.target.resolve() in read:
            raise UsageError(f"Output {task.target} would overwrite a photo; choose another output folder.")
    return tasks


def find_photos(source: str, target: Path) -> Listing:
    """Return the `Listing` of a folder or a glob, without what is in `target`; raises `UsageError` without photos.

    Our own outputs among photos are left out.
    """
    if Path(source).is_dir():
        if target.resolve() == Path(source).resolve():
            raise UsageError(f"Output {target} is the folder of photos itself; choose another output folder.")
        listing = list_folder(source, apart_from=target)
    elif is_glob(source):
        listing = list_glob(source, apart_from=target)
    else:
        raise UsageError(f"Expected a photo, a folder or a glob; {source} does not exist.")
    if not listing.photos:
        raise UsageError(none_found(source, listing))
    return _without_outputs(listing)


def _without_outputs(listing: Listing) -> Listing:
    """Leave out outputs that lie among photos, of an earlier run into another folder; where nothing else is, they stay.

    Otherwise each run over "." would make cut-outs of the cut-outs of the one before.
    """
    ours = {path for path in listing.photos if marks.read_mark(path) is not None}
    if not ours or len(ours) == len(listing.photos):
        return listing
    left_out = sorted([*listing.left_out, *(LeftOut(path, "output", "an output") for path in ours)], key=_path_of)
    photos = tuple(path for path in listing.photos if path not in ours)
    return replace(listing, photos=photos, left_out=tuple(left_out))


def _path_of(left_out: LeftOut) -> Path:
    return left_out.path


def require_own_outputs(tasks: Iterable[Task]) -> None:
    """Raise `UsageError` if no task has an output that may be written: all are there and none is ours, of its photo."""
    refusals = []
    for task in tasks:
        refusals.append(marks.why_not_own(task.target, task.source))
        if refusals[-1] is None:
            return
    more = f", and so for {len(refusals) - 1} more" if len(refusals) > 1 else ""
    raise UsageError(f"{refusals[0]}{more}. Add --overwrite, choose another output, or quote the glob: '*.jpg'.")


def run(
    session: Session,
    tasks: Iterable[Task],
    options: OutputOptions = OutputOptions(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    max_megapixels: float = photo_files.MAX_MEGAPIXELS,
) -> Iterator[Result]:
    """Matte all tasks and yield a `Result` for each, in order, as they are ready.

    A photo that cannot be read or written fails alone, and so does one whose output is there and not ours, unless
    `overwrite`. `resume` keeps such outputs, also those that somebody has retouched, and skips those that are newer
    than their photo, decode whole and were made of this photo by this model with these options; the rest is made anew,
    each file in one step. At most about a dozen photos are in
    memory at a time, and no more than fit (`footprint`); one that does not fit by itself fails.
    """
    made_by, room = marks.made_by(session.preset, options), footprint.Room(footprint.usable())
    workers = min(MAX_WORKERS, max(2, usable_cores()))
    with ThreadPoolExecutor(workers, "decode") as decoders, ThreadPoolExecutor(workers, "encode") as encoders:
        decoding: deque[tuple[Result, Task, Future[_Decoded | None]]] = deque()
        encoding: deque[tuple[Result, Future[None]]] = deque()
        waiting = ((task, footprint.of_path(task.source, options, task.target.suffix.lower())) for task in tasks)
        following = next(waiting, None)
        try:
            while following or decoding or encoding:
                while following and len(decoding) < workers and room.fits(following[1]):
                    task, cost = following
                    reading: Future[_Decoded | None]
                    result = Result(str(task.source), str(task.target), "done")
                    if refusal := room.refusal(cost):
                        reading = decoders.submit(fail, refusal)
                    else:
                        reading = decoders.submit(
                            _read, session, result, task, made_by, resume, overwrite, max_megapixels
                        )
                        room.take(id(result), cost)
                    decoding.append((result, task, reading))
                    following = next(waiting, None)
                if decoding:
                    encoding.append(_infer(session, *decoding.popleft(), options, encoders))
                while encoding and (not decoding or len(encoding) > workers or encoding[0][1].done()):
                    result = collect(*encoding.popleft())
                    room.give(id(result))
                    yield result
                    if not decoding:  # there may be room for more now
                        break
        finally:
            for *_, reading in decoding:
                reading.cancel()
            for _, writing in encoding:
                writing.cancel()


def _read(
    session: Session, result: Result, task: Task, made_by: Mark, resume: bool, overwrite: bool, max_megapixels: float
) -> _Decoded | None:
    """Decode and prepare one photo: (photo, model input, its output's mark, milliseconds).

    None if there is nothing to do; the result's status says why.
    """
    start = time.perf_counter()
    require_no_stream(task.target)
    data = read_file(task.source)
    if not overwrite and (refusal := marks.why_not_own(task.target, task.source, data)):
        if refusal.is_of_another:
            raise UsageError(f"{refusal}. Add --overwrite, or choose another output.")
        if not resume:
            raise UsageError(f"{refusal}. Add --overwrite to replace it, or --resume to keep it.")
        result.status, result.error = "kept", str(refusal)
        return None
    mark = made_by | marks.made_of(task.source, data)
    if resume and task.target.exists():
        result.anew = _why_anew(task, mark)
        if result.anew is None:
            result.status, result.confidence = "skipped", marks.confidence_in(task.target)
            return None
    photo = photo_files.decode(data, max_megapixels)
    return photo, session.prepare(photo), mark, _ms_since(start)


def _infer(
    session: Session,
    result: Result,
    task: Task,
    decoding: Future[_Decoded | None],
    options: OutputOptions,
    encoders: ThreadPoolExecutor,
) -> tuple[Result, Future[None]]:
    """Run the engine on one photo and hand its output to the encoders; return (result, future)."""
    try:
        decoded = decoding.result()
    except FAILURES as error:
        return result, encoders.submit(fail, error)
    if decoded is None:
        return result, encoders.submit(lambda: None)
    photo, tensor, mark, result.decode_ms = decoded
    result.height, result.width = photo.rgb.shape[:2]
    start = time.perf_counter()
    try:
        raw_matte = session.predict(tensor[None])[0]
    except FAILURES as error:
        return result, encoders.submit(fail, error)
    result.infer_ms = _ms_since(start)
    return result, encoders.submit(_write, session, result, task, photo, raw_matte, options, mark)


def _write(
    session: Session, result: Result, task: Task, photo: Photo, raw_matte: Float32, options: OutputOptions, mark: Mark
) -> None:
    start = time.perf_counter()
    finished = session.finish(photo, raw_matte, options)
    result.box = finished.box._asdict() if finished.box else None
    write_atomically(task.target, encoded(finished, photo, options, task.target.suffix.lower(), mark))
    result.confidence = finished.confidence  # of what is there
    result.encode_ms = _ms_since(start)


def fail(error: BaseException) -> NoReturn:
    """Raise `error`: what a future does whose work cannot begin."""
    raise error


def collect(result: Result, future: Future[None]) -> Result:
    """Return `result` when its output is written, or why that failed."""
    try:
        future.result()
    except MattingError as error:
        result.status, result.error = "failed", str(error)
    except FAILURES as error:  # one photo that a library chokes on must not end a run of thousands
        result.status, result.error = "failed", f"{type(error).__name__}: {first_line(error)}"
    return result


def _why_anew(task: Task, wanted: Mark) -> str | None:
    """Return why an output that is there is made anew, or None: it is whole, newer than its photo, made as `wanted`."""
    if reason := marks.why_otherwise(marks.read_mark(task.target), wanted):
        return reason
    try:
        if task.target.stat().st_mtime < task.source.stat().st_mtime:
            return "older than its photo"
        photo_files.decode(task.target.read_bytes(), math.inf)
    except (OSError, ImageError):
        return "damaged"
    return None


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 2)
