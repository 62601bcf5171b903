"""Files that every reader can read: headers checked, odd formats converted once into the cache.

The training pipeline decodes in TensorFlow's graph, which reads JPEG and PNG, ignores EXIF and drops alpha. So photos
stay as they are where they are JPEG or opaque PNG, cut-outs where they are RGBA PNG, and masks where they are grey PNG,
all of at most 8 bits a channel. All else becomes such a PNG under the cache folder; a mask in colours is left out.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from keras_matting.arrays import Uint8
from keras_matting.data.base import Problem, Sample, read_sample
from keras_matting.data.masks import NotAMatteError, decode_truth
from keras_matting.data.orientation import Way, way_by_content
from keras_matting.errors import ImageError, first_line
from keras_matting.files import name_bytes, write_atomically
from keras_matting.machine import usable_cores
from keras_matting.photos.files import decode, encode, exif_orientation, probe, upright
from keras_matting.photos.headers import exif_comes_late
from keras_matting.photos.imaging import on_paper

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_HEADER_BYTES = 1 << 16  # holds size and EXIF of nearly every file; where it does not, the whole file is read
_RENDERING = 3  # goes up when the same file becomes another PNG: what an earlier version made is made anew
_GREY, _RGBA = 0, 6  # PNG's colour types; 2 is RGB, 3 a palette, 4 grey with alpha


@dataclass(frozen=True)
class Header:
    """What a file's first bytes say. `size`: (width, height) as stored. `colours`, `bits`: a PNG's, else -1 and 0."""

    kind: str
    size: tuple[int, int]
    orientation: int
    colours: int = -1
    bits: int = 0
    has_key_colour: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """The size once the EXIF orientation is applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_header(path: Path) -> Header:
    """Read the `Header` of an image file; raises `ImageError` if it is none."""
    with path.open("rb") as file:
        data = file.read(_HEADER_BYTES)
        try:
            kind, width, height = probe(data)
        except ImageError:
            data += file.read()
            kind, width, height = probe(data)
        if exif_comes_late(kind, data):
            data += file.read()
    header = Header(kind, (width, height), exif_orientation(data))
    if kind != "PNG":
        return header
    has_key = data.find(b"tRNS", 33, data.find(b"IDAT")) > 0
    return replace(header, colours=data[25], bits=data[24], has_key_colour=has_key)


def prepare(samples: Sequence[Sample], cache_dir: Path, *, cutouts: bool = False) -> tuple[list[Sample], list[Problem]]:
    """Return (samples that fit, problems): sizes compared, masks turned as their photos, odd formats converted.

    `samples` as found on disk; `cutouts`: their alpha channel is their truth. A mask that fits its photo's file as it
    lies, which EXIF turns, is turned, too. Where it fits both ways and the photo itself does not tell, it lies as the
    others of these samples, if they all lie the same way; else it is a problem.
    """
    read = in_threads(lambda sample: _read(sample, cache_dir, cutouts), samples, "photos")
    ways = {one.way for one in read if isinstance(one, _Read) and one.asked > 1 and one.way}
    common = ways.pop() if len(ways) == 1 else None
    results = in_threads(lambda one: _prepared(one, common, cache_dir), read, "masks")
    problems = [result for result in results if isinstance(result, Problem)]
    return [result for result in results if not isinstance(result, Problem)], problems


def in_threads(function: Callable[[_Item], _Result], items: Collection[_Item], title: str) -> list[_Result]:
    """Return `function` of each item, in order, by as many threads as there are cores; what takes long shows a bar."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        bar = tqdm(pool.map(function, items), title, len(items), unit="file", disable=None, delay=2, leave=False)
        return list(bar)


def cached(path: Path, tag: str, cache_dir: Path, make: Callable[[], bytes]) -> Path:
    """Return the cache's PNG for a file, of the bytes that `make()` returns where it is not there yet.

    It is keyed by the file's path, size and time, and by `tag`: what is made of it.
    """
    stat = path.stat()
    made_of = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{tag}\0{_RENDERING}"
    key = sha256(name_bytes(made_of)).hexdigest()[:32]
    target = cache_dir / key[:2] / f"{key}.png"
    if not target.is_file():
        write_atomically(target, make())
    return target


@dataclass(frozen=True)
class _Read:
    """A sample whose files are ready, but for its mask's turn.

    `asked`: the EXIF orientation of the photo's own file. `way`: how the mask lies; None where nothing tells.
    """

    sample: Sample
    asked: int = 1
    way: Way | None = Way.UPRIGHT


def _read(sample: Sample, cache_dir: Path, cutouts: bool) -> _Read | Problem:
    """Return the sample's `_Read`, or the `Problem` with it."""
    reading = sample.image
    try:
        stored = read_header(sample.image)
        image, header = _readable(sample.image, stored, "cut-out" if cutouts else "photo", cache_dir)
        if cutouts and header.colours != _RGBA:
            return Problem("no transparency", sample.stem, f"{sample.image} is opaque: no cut-out")
        ready = replace(sample, image=image, orientation=header.orientation, origins=(sample.image,))
        if sample.alpha is None:
            return _Read(ready)
        reading = sample.alpha
        alpha, mask = _readable(sample.alpha, read_header(sample.alpha), "mask", cache_dir)
        ready = replace(ready, alpha=alpha, origins=(sample.image, sample.alpha))
        fits, fits_stored = mask.size == header.upright_size, mask.size == stored.size
        if fits_stored and stored.orientation > 1:
            way = _way(ready, stored.orientation) if fits else Way.STORED
            return _Read(ready, stored.orientation, way)
        if fits:
            return _Read(ready, stored.orientation)
    except NotAMatteError as error:
        return Problem(error.kind, sample.stem, f"{reading}: {error}")
    except (OSError, ImageError, cv2.error, MemoryError) as error:
        return Problem("unreadable", sample.stem, f"{reading}: {first_line(error)}")
    sizes = [f"{width}x{height}" for width, height in (header.upright_size, mask.size)]
    return Problem("size mismatch", sample.stem, f"{sample.image} has {sizes[0]}, its mask {sizes[1]}")


def _way(sample: Sample, orientation: int) -> Way | None:
    """Return how the mask of a sample lies by what its files show."""
    rgb, alpha = read_sample(sample)
    return way_by_content(rgb, alpha, orientation) if alpha is not None else Way.UPRIGHT


def _prepared(read: _Read | Problem, common: Way | None, cache_dir: Path) -> Sample | Problem:
    """Return the sample, ready, or its `Problem`; `common`: how the masks of the others lie, if all do the same."""
    if isinstance(read, Problem):
        return read
    sample, way = read.sample, read.way or common
    if way is None:
        return Problem(
            "ambiguous orientation",
            sample.stem,
            f"{sample.image} is turned by its EXIF orientation of {read.asked}, and its mask fits turned or as it is: "
            "save both upright",
        )
    alpha = sample.alpha
    if way is Way.UPRIGHT or alpha is None:
        return sample
    try:
        return replace(
            sample, alpha=cached(alpha, f"turned {read.asked}", cache_dir, lambda: _turned(alpha, read.asked))
        )
    except (OSError, ImageError, cv2.error, MemoryError) as error:
        return Problem("unreadable", sample.stem, f"{alpha}: {first_line(error)}")


def _turned(path: Path, orientation: int) -> bytes:
    return encode(upright(decode_truth(path.read_bytes()), orientation), ".png")


def _readable(path: Path, header: Header, role: str, cache_dir: Path) -> tuple[Path, Header]:
    """Return (path, header) of the file itself or, where the pipeline could not read it, of its copy in the cache."""
    if not _KEPT[role](header):
        path = cached(path, role, cache_dir, lambda: encode(_RENDERED[role](path.read_bytes()), ".png"))
        header = read_header(path)
    return path, header


def _is_photo(header: Header) -> bool:
    opaque_png = header.kind == "PNG" and header.bits <= 8 and header.colours < 4 and not header.has_key_colour
    return header.kind == "JPEG" or opaque_png


def _is_cutout(header: Header) -> bool:
    return header.colours == _RGBA and header.bits == 8 and header.orientation == 1


def _is_mask(header: Header) -> bool:
    return header.colours == _GREY and header.bits <= 8 and not header.has_key_colour and header.orientation == 1


def _opaque(data: bytes) -> Uint8:
    return on_paper(decode(data))


def _rgba(data: bytes) -> Uint8:
    photo = decode(data)
    return photo.rgb if photo.alpha is None else np.dstack([photo.rgb, photo.alpha])


_KEPT = {"photo": _is_photo, "cut-out": _is_cutout, "mask": _is_mask}
_RENDERED = {"photo": _opaque, "cut-out": _rgba, "mask": decode_truth}
