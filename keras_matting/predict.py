"""Many photos: what to read and write, and a pipeline in which decoding and encoding overlap inference."""

import glob
import json
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from keras_matting import image_files
from keras_matting.errors import ImageError, MattingError, UsageError
from keras_matting.files import write_atomically
from keras_matting.matting import OutputOptions, read_photo

_GLOB_SIGNS = "*?["


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
    one file, else a folder. `extension` (".png") is that of outputs in folders. Two photos that would share an output
    keep their own extension in its name. Raises `UsageError` if there is no photo or an output is a photo read.
    """
    root, photos = _photos(source)
    target = Path(target)
    if Path(source).is_file() and target.suffix.lower() in image_files.ENCODABLE and not target.is_dir():
        jobs = [Job(photos[0], target)]
    else:
        if target.is_file():
            raise UsageError(f"Expected an output folder; {target} is a file.")
        outputs = [(target / photo.relative_to(root)).with_suffix(extension) for photo in photos]
        shared = {output for output in outputs if outputs.count(output) > 1} if len(set(outputs)) < len(outputs) else ()
        jobs = [
            Job(photo, output.with_name(photo.name + extension) if output in shared else output)
            for photo, output in zip(photos, outputs, strict=True)
        ]
    read = {photo.resolve() for photo in photos}
    for job in jobs:
        if job.target.resolve() in read:
            raise UsageError(f"Output {job.target} would overwrite a photo; choose another output folder.")
    return jobs


def _photos(source):
    """Return (folder to keep paths relative to, photos in order)."""
    path = Path(source)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, found = path, path.rglob("*")
    elif not set(_GLOB_SIGNS).isdisjoint(str(source)):
        root = Path(*takewhile(lambda part: set(_GLOB_SIGNS).isdisjoint(part), path.parts))
        found = map(Path, glob.glob(str(source), recursive=True))  # noqa: PTH207 - the pattern may be absolute
    else:
        raise UsageError(f"Expected a photo, a folder or a glob; {source} does not exist.")
    photos = sorted(p for p in found if p.suffix.lower() in image_files.EXTENSIONS and p.is_file())
    if not photos:
        raise UsageError(f"Expected photos ({', '.join(image_files.EXTENSIONS)}) in {source}; found none.")
    return root, photos


def run(session, jobs, options=OutputOptions(), *, resume=False, max_megapixels=image_files.MAX_MEGAPIXELS):
    """Matte all jobs and yield a `Result` for each, in order, as they are ready.

    A photo that cannot be read or written fails alone. `resume` skips outputs that exist and decode whole; the rest is
    overwritten, each file in one step. At most a few photos are in memory at a time.
    """
    workers = max(2, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "decode") as decoders, ThreadPoolExecutor(workers, "encode") as encoders:
        decoding, encoding = deque(), deque()
        jobs = iter(jobs)
        try:
            while True:
                while len(decoding) < workers and (job := next(jobs, None)):
                    result = Result(str(job.source), str(job.target), "done")
                    decoding.append((result, job, decoders.submit(_read, session, job, resume, max_megapixels)))
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


def _read(session, job, resume, max_megapixels):
    """Decode and prepare one photo: (photo, model input, milliseconds), or None if its output is whole already."""
    if resume and _is_whole(job.target):
        return None
    start = time.perf_counter()
    photo = read_photo(job.source, max_megapixels)
    return photo, session.prepare(photo), _ms_since(start)


def _infer(session, result, job, decoding, options, encoders):
    """Run the engine on one photo and hand its output to the encoders; return (result, future)."""
    try:
        decoded = decoding.result()
    except MattingError as error:
        return result, encoders.submit(_fail, error)
    if decoded is None:
        result.status = "skipped"
        return result, encoders.submit(lambda: None)
    photo, tensor, result.decode_ms = decoded
    result.height, result.width = photo.rgb.shape[:2]
    start = time.perf_counter()
    raw_matte = session.predict(tensor[None])[0]
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
    return result


def _is_whole(path):
    try:
        image_files.decode(path.read_bytes())
    except (OSError, ImageError):
        return False
    return True


def _ms_since(start):
    return round((time.perf_counter() - start) * 1000, 2)
