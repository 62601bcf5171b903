"""Many photos: what to read and write, and a pipeline in which decoding and encoding overlap inference."""

import glob
import json
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np

from keras_matting import image_files
from keras_matting.engines.devices import usable_cores
from keras_matting.errors import ImageError, MattingError, UsageError, first_line
from keras_matting.files import write_atomically
from keras_matting.matting import OutputOptions, read_photo

_GLOB_SIGNS = "*?["
MAX_WORKERS = 4  # of each kind; each holds a photo of up to 150 megapixels
FAILURES = (MattingError, cv2.error, MemoryError, OSError, ValueError)


@dataclass(frozen=True)
class Job:
    """One photo to read and the file to write."""

    source: Path
    target: Path


@dataclass
class Result:
    """What became of one photo: `status` is "done", "skipped" or "failed"; times in milliseconds, sizes in pixels."""

    input: str
    output: str
    status: str
    error: str | None = None
    width: int | None = None
    height: int | None = None
    decode_ms: float | None = None
    infer_ms: float | None = None
    encode_ms: float | None = None

    def as_json(self):
        """Return one line of JSON without the fields that do not apply."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})


def plan(source, target, extension):
    """Return the `Job`s for INPUT and OUTPUT as the command line takes them.

    `source`: a file, a folder (its tree is kept), or a glob. `target`: a file with an image's extension if `source` is
    one file, else a folder; photos in that folder are not read, so that a run can be repeated. `extension` (".png") is
    that of outputs in folders. Photos that would share an output keep their own extension in its name. Raises
    `UsageError` if there is no photo or an output would overwrite one.
    """
    source, target = str(source), Path(target)
    if not source:
        raise UsageError("Expected a photo, a folder or a glob; received an empty name.")
    path = Path(source)
    one_file = path.exists() and not path.is_dir()
    known = target.suffix.lower() in (*image_files.EXTENSIONS, ".gif", ".avif", ".heic", ".psd")
    if known and not target.is_dir():
        if not one_file or target.suffix.lower() not in image_files.ENCODABLE:
            expected = f"a file of {', '.join(image_files.ENCODABLE)}" if one_file else "an output folder"
            raise UsageError(f"Expected {expected}; received {target}.")
        jobs = [Job(path, target)]
    else:
        if target.exists() and not target.is_dir():
            raise UsageError(f"Expected an output folder; {target} is a file.")
        root, photos = (path.parent, [path]) if one_file else find_photos(source, target)
        jobs = [Job(*pair) for pair in zip(photos, outputs(root, photos, target, extension), strict=True)]
    read = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in read:
            raise UsageError(f"Output {job.target} would overwrite a photo; choose another output folder.")
    return jobs


def find_photos(source, target):
    """Return (folder to keep paths relative to, photos in order), leaving out hidden files and those in `target`."""
    path = Path(source)
    if path.is_dir():
        root, found = path, path.rglob("*")
        if target.resolve() == path.resolve():
            raise UsageError(f"Output {target} is the folder of photos itself; choose another output folder.")
    elif not set(_GLOB_SIGNS).isdisjoint(source):
        root = Path(*takewhile(lambda part: set(_GLOB_SIGNS).isdisjoint(part), path.parts))
        found = map(Path, glob.glob(source, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    else:
        raise UsageError(f"Expected a photo, a folder or a glob; {source} does not exist.")
    own = target.resolve()
    photos = sorted(
        photo
        for photo in found
        if photo.suffix.lower() in image_files.EXTENSIONS
        and photo.is_file()
        and not any(part.startswith(".") and part != ".." for part in photo.relative_to(root).parts)
        and not photo.resolve().is_relative_to(own)
    )
    if not photos:
        raise UsageError(f"Expected photos ({', '.join(image_files.EXTENSIONS)}) in {source}; found none.")
    return root, photos


def outputs(root, photos, target, extension):
    """Return an output for each photo, no two the same: a.png, or a.jpg.png where several would be called so.

    `extension` may be "", for outputs whose kind is not known yet.
    """
    chosen = [(target / photo.relative_to(root)).with_suffix(extension) for photo in photos]
    while len(counts := Counter(chosen)) < len(chosen):
        chosen = [
            output.with_name(photo.name + extension) if counts[output] > 1 else output
            for photo, output in zip(photos, chosen, strict=True)
        ]
    return chosen


def run(session, jobs, options=OutputOptions(), *, resume=False, max_megapixels=image_files.MAX_MEGAPIXELS):
    """Matte all jobs and yield a `Result` for each, in order, as they are ready.

    A photo that cannot be read or written fails alone. `resume` skips outputs that are newer than their photo, decode
    whole and are of the kind and size asked for (which model or refinement made them is not known); the rest is
    overwritten, each file in one step. At most about a dozen photos are in memory at a time.
    """
    workers = min(MAX_WORKERS, max(2, usable_cores()))
    with ThreadPoolExecutor(workers, "decode") as decoders, ThreadPoolExecutor(workers, "encode") as encoders:
        decoding, encoding = deque(), deque()
        jobs = iter(jobs)
        try:
            while True:
                while len(decoding) < workers and (job := next(jobs, None)):
                    result = Result(str(job.source), str(job.target), "done")
                    decoding.append(
                        (result, job, decoders.submit(_read, session, job, options if resume else None, max_megapixels))
                    )
                if not decoding:
                    break
                encoding.append(_infer(session, *decoding.popleft(), options, encoders))
                while encoding and (len(encoding) > workers or encoding[0][1].done()):
                    yield _finish(*encoding.popleft())
            while encoding:
                yield _finish(*encoding.popleft())
        finally:
            for *_, pending in (*decoding, *encoding):
                pending.cancel()


def _read(session, job, resumed, max_megapixels):
    """Decode and prepare one photo: (photo, model input, milliseconds), or None if its output is there already.

    `resumed` is the `OutputOptions` that the output must have been made with, or None to make it anew.
    """
    start = time.perf_counter()
    if resumed and _is_done(job, resumed):
        return None
    photo = read_photo(job.source, max_megapixels)
    return photo, session.prepare(photo), _ms_since(start)


def _infer(session, result, job, decoding, options, encoders):
    """Run the engine on one photo and hand its output to the encoders; return (result, future)."""
    try:
        decoded = decoding.result()
    except FAILURES as error:
        return result, encoders.submit(_fail, error)
    if decoded is None:
        result.status = "skipped"
        return result, encoders.submit(lambda: None)
    photo, tensor, result.decode_ms = decoded
    result.height, result.width = photo.rgb.shape[:2]
    start = time.perf_counter()
    try:
        raw_matte = session.predict(tensor[None])[0]
    except FAILURES as error:
        return result, encoders.submit(_fail, error)
    result.infer_ms = _ms_since(start)
    return result, encoders.submit(_write, session, result, job, photo, raw_matte, options)


def _write(session, result, job, photo, raw_matte, options):
    start = time.perf_counter()
    image = session.render(photo, raw_matte, options)
    write_atomically(job.target, image_files.encode(image, job.target.suffix.lower(), photo.icc))
    result.encode_ms = _ms_since(start)


def _fail(error):
    raise error


def _finish(result, future):
    try:
        future.result()
    except MattingError as error:
        result.status, result.error = "failed", str(error)
    except FAILURES as error:  # one photo that a library chokes on must not end a run of thousands
        result.status, result.error = "failed", f"{type(error).__name__}: {first_line(error)}"
    return result


def _is_done(job, options):
    """Tell whether the output is whole, newer than its photo, and of its size and the kind asked for."""
    try:
        if job.target.stat().st_mtime < job.source.stat().st_mtime:
            return False
        image = cv2.imdecode(np.fromfile(job.target, np.uint8), cv2.IMREAD_UNCHANGED)
        _, width, height = image_files.probe(job.source.read_bytes())
    except (OSError, cv2.error, ImageError):
        return False
    if image is None or {*image.shape[:2]} != {width, height}:
        return False
    depth = np.uint16 if options.kind == "matte16" else np.uint8
    channels = {"rgba": {4}, "mask": {1}, "matte16": {1}}.get(options.kind, {3})
    if job.target.suffix.lower() == ".webp":  # stores grey as colour, and drops an alpha that is opaque everywhere
        channels = {3, 4} if options.kind == "rgba" else {3}
    return image.dtype == depth and (image.shape[2] if image.ndim == 3 else 1) in channels


def _ms_since(start):
    return round((time.perf_counter() - start) * 1000, 2)
