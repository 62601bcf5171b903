"""How much memory a photo takes on its way to an output, and how much there is: so that no more is begun than fits.

The figures are peaks of a process of its own, for each pixel, over decoding, rendering and encoding, with some to
spare: of 25 megapixels an RGBA cut-out takes 13 bytes a pixel, of a photo with transparency 19.
"""

import os
from collections.abc import Hashable
from pathlib import Path

from keras_matting import cgroups
from keras_matting.errors import ImageError
from keras_matting.files import StrPath
from keras_matting.photos import files as photo_files
from keras_matting.photos import refine
from keras_matting.photos.options import Options

MIB = 2**20
_PLAIN = 20
_UNPACKED = 44  # decoded at 16 bits a channel or by way of copies; or encoded by libwebp without loss
_WITH_BAND = 8  # trimap and band, more than _PLAIN
_FRAMED, _PER_CANVAS_PIXEL = 12, 44  # resampled, of a photo's pixels and of the output's
_PER_FOREGROUND_PIXEL, _PER_REFINED_PIXEL = 75, 800
_PER_PHOTO = MIB
_FIRST_BYTES = 2**16
_SPARE = 1 / 8  # of all memory, for what allocators keep, what is imported later, and what else is not counted
_OPAQUE = ("on-color", "on-image")
_WITHOUT_SPARE = 3 / 4  # of a cost: what most photos take; by itself one is refused only if that is too much
_STATM = Path("/proc/self/statm")


def of_file(data: bytes, options: Options, extension: str = ".png") -> int:
    """Return the bytes that a photo takes from its file's bytes to its output's; `ImageError` if it is no photo.

    `options`: `matting.OutputOptions`. `extension` is that of the output.
    """
    kind, width, height = photo_files.probe(data)
    deep = data[24] == 16 if kind == "PNG" else kind not in ("JPEG", "WebP")
    cost = of_photo(width * height, options, deep or (extension == ".webp" and options.kind not in _OPAQUE))
    if options.framing:
        cost += width * height * _FRAMED + options.framing.largest(height, width) * _PER_CANVAS_PIXEL
    return cost


def of_photo(pixels: int, options: Options, unpacked: bool = False) -> int:
    """Return the same, of so many pixels."""
    cost = _PER_PHOTO + pixels * (_UNPACKED if unpacked else _PLAIN)
    if options.refine:
        cost += pixels * _WITH_BAND + _PER_REFINED_PIXEL * min(pixels, refine.MAX_REFINED_PIXELS)
    elif options.foreground:  # they come one after the other
        cost += _PER_FOREGROUND_PIXEL * min(pixels, refine.MAX_FOREGROUND_PIXELS)
    return cost


def usable(limit: int | None = None) -> int | None:
    """Return how many bytes photos may take: of `limit`, by default what this process can have at all, what is left.

    None where neither is known.
    """
    limit = limit or cgroups.usable_memory()
    return None if limit is None else left(limit, held())


def left(limit: int, held: int) -> int:
    """Return what photos may take of `limit` in a process that holds so many bytes by itself."""
    return max(0, int(limit * (1 - _SPARE)) - held)


def held() -> int:
    """Return how many bytes of memory this process holds: its models, above all; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class Room:
    """Memory shared by photos in flight, of one thread that begins and ends them. `total` None: as much as they like.

    Each photo is known by a key. A photo that nothing is known of (a cost of None) is taken for one that fills it all.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._costs: dict[Hashable, int] = {}

    def fits(self, cost: int | None) -> bool:
        """Whether a photo can begin now: always if it would be the only one."""
        if self.total is None or not self._costs:
            return True
        return cost is not None and cost + sum(self._costs.values()) <= self.total

    def take(self, key: Hashable, cost: int | None) -> None:
        """Begin a photo."""
        self._costs[key] = min(self.total, cost if cost is not None else self.total) if self.total is not None else 0

    def give(self, key: Hashable) -> None:
        """End it."""
        self._costs.pop(key, None)

    def refusal(self, cost: int | None) -> ImageError | None:
        """Return the `ImageError` that says that a photo does not fit even by itself, or None."""
        if self.total is None or cost is None or cost * _WITHOUT_SPARE <= self.total:
            return None
        return ImageError(
            f"Expected a photo and an output that fit into {int(self.total) // MIB} MiB of memory; these take about "
            f"{int(cost * _WITHOUT_SPARE) // MIB} MiB. Scale the photo down, leave out --refine and "
            "--foreground, make the canvas smaller, or allow more memory."
        )


def require_room(data: bytes, options: Options, extension: str = ".png") -> None:
    """Raise `ImageError` if what `of_file` says of these bytes is more than there is."""
    if refusal := Room(usable()).refusal(of_file(data, options, extension)):
        raise refusal


def of_path(path: StrPath, options: Options, extension: str = ".png") -> int | None:
    """Return what `of_file` says of a file: None where it cannot be read twice, 0 where it is no photo."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            try:
                return of_file(file.read(_FIRST_BYTES), options, extension)
            except (ImageError, IndexError):  # a header may be long, or at the end
                file.seek(0)
                return of_file(file.read(), options, extension)
    except OSError:
        return None
    except (ImageError, IndexError):  # decoding will tell why
        return 0
