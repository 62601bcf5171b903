"""How much memory a photo takes on its way to an output, and how much there is: so that no more is begun than fits.

The figures are peaks of a process of its own, for each pixel, over decoding, rendering and encoding, with some to
spare: of 25 megapixels an RGBA cut-out takes 13 bytes a pixel, of a photo with transparency 19.
"""

import os
from pathlib import Path

from keras_matting import cgroups, image_files, refine

MIB = 2**20
_PLAIN = 20
_UNPACKED = 44  # decoded at 16 bits a channel or by way of copies; or encoded by libwebp without loss
_WITH_BAND = 8  # trimap and band, more than _PLAIN
_PER_FOREGROUND_PIXEL, _PER_REFINED_PIXEL = 75, 800
_PER_PHOTO = 4 * MIB
_SPARE = 1 / 16  # of all memory, for what allocators keep and everything that is not counted
_OPAQUE = ("on-color", "on-image")
_STATM = Path("/proc/self/statm")


def of_file(data, options, extension=".png"):
    """Return the bytes that a photo takes from its file's bytes to its output's; `ImageError` if it is no photo.

    `options`: `matting.OutputOptions`. `extension` is that of the output.
    """
    kind, width, height = image_files.probe(data)
    deep = data[24] == 16 if kind == "PNG" else kind not in ("JPEG", "WebP")
    return of_photo(width * height, options, deep or (extension == ".webp" and options.kind not in _OPAQUE))


def of_photo(pixels, options, unpacked=False):
    """Return the same, of so many pixels."""
    cost = _PER_PHOTO + pixels * (_UNPACKED if unpacked else _PLAIN)
    if options.refine:
        cost += pixels * _WITH_BAND + _PER_REFINED_PIXEL * min(pixels, refine.MAX_REFINED_PIXELS)
    elif options.foreground:  # they come one after the other
        cost += _PER_FOREGROUND_PIXEL * min(pixels, refine.MAX_FOREGROUND_PIXELS)
    return cost


def usable(limit=None):
    """Return how many bytes photos may take: of `limit`, by default what this process can have at all, what is left.

    None where neither is known.
    """
    limit = limit or cgroups.usable_memory()
    return None if limit is None else left(limit, held())


def left(limit, held):
    """Return what photos may take of `limit` in a process that holds so many bytes by itself."""
    return max(0, int(limit * (1 - _SPARE)) - held)


def held():
    """Return how many bytes of memory this process holds: its models, above all; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
