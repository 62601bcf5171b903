"""Files as the world sends them: broken, hostile, or merely odd."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from keras_matting.photos.files import encode

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>'


def saved(image, kind, **options):
    """Return a PIL image's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data, crc=None):
    """Return a PNG chunk."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(width, height, *chunks, pixels=None):
    """Return a grey PNG whose header says a size, with chunks before its pixels."""
    rows = b"\0" * ((width + 1) * height) if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb(megabytes):
    """Return a PNG whose zTXt chunk unpacks to so many megabytes."""
    return png(64, 64, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * megabytes * 2**20, 9)))


def bad_crc(photo):
    """Return a PNG with a wrong check sum over its pixels."""
    data = bytearray(encode(photo, ".png"))
    at = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, at)
    data[at + 8 + length] ^= 0xFF
    return bytes(data)


def with_scans(data, count):
    """Return a progressive JPEG with `count` more scans: each says that the end of a band comes at once, everywhere."""
    table = b"\xff\xc4\x00\x14\x10\x01" + bytes(15) + b"\xe0"  # one code of one bit: a run of 2^14 empty blocks
    scan = b"\xff\xda" + b"\x00\x08\x01\x01\x00\x01\x01\x00" + bytes(8)
    return data[:-2] + table + scan * count + b"\xff\xd9"


def polyglot(photo):
    """Return a JPEG that is a ZIP archive, too."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("readme.txt", "hello")
    return encode(photo, ".jpg") + archive.getvalue()


def refused(photo):
    """Return {what: (bytes, status, code)} of files that are refused."""
    jpeg, image = encode(photo, ".jpg"), Image.fromarray(photo)
    grey = image.convert("L")
    return {
        "empty": (b"", 422, "undecodable_image"),
        "one byte": (b"\xff", 422, "undecodable_image"),
        "text": (b"this is not a photo at all, but text", 415, "unsupported_format"),
        "SVG": (SVG, 415, "unsupported_format"),
        "GIF": (saved(grey, "GIF"), 415, "unsupported_format"),
        "TIFF": (saved(grey, "TIFF"), 415, "unsupported_format"),
        "BMP": (saved(grey, "BMP"), 415, "unsupported_format"),
        "PSD": (b"8BPS\0\1" + bytes(40), 415, "unsupported_format"),
        "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(40), 415, "unsupported_format"),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], 422, "undecodable_image"),
        "truncated PNG": (encode(photo, ".png")[:-200], 422, "undecodable_image"),
        "truncated WebP": (encode(photo, ".webp")[:-200], 422, "undecodable_image"),
        "bad CRC": (bad_crc(photo), 422, "undecodable_image"),
        "JPEG half there, then its end": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", 422, "undecodable_image"),
        # Fault: service_progressive_scans
        "JPEG of 26,000 scans": (with_scans(saved(image, "JPEG", progressive=True), 26_000), 422, "undecodable_image"),
        "zero size": (png(0, 0), 422, "undecodable_image"),
        "400 megapixels": (png(20000, 20000, pixels=b""), 413, "image_too_large"),
        "169 megapixels": (png(13000, 13000, pixels=b""), 413, "image_too_large"),
        "1x30000": (png(1, 30000), 413, "image_too_large"),
    }


def accepted(photo):
    """Return {what: (bytes, (width, height) of the output)} of odd files that are matted all the same."""
    image = Image.fromarray(photo)
    palette = image.quantize(8)
    palette.info["transparency"] = 0
    hidden = np.dstack([photo, np.where(photo[..., 0] > 100, 255, 0).astype(np.uint8)])
    corrupt = Image.Exif()
    corrupt[0x0112] = 6
    size = (120, 90)
    files = {
        "1x1": (saved(image.resize((1, 1)), "PNG"), (1, 1)),
        "CMYK": (saved(image.convert("CMYK"), "JPEG"), size),
        "16-bit grey": (encode(photo[..., 0].astype(np.uint16) * 257, ".png"), size),
        "palette with transparency": (saved(palette, "PNG", transparency=0), size),
        "hidden colours": (encode(hidden, ".png"), size),
        "corrupt EXIF": (saved(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), size),
        "corrupt ICC": (saved(image, "JPEG", icc_profile=b"no profile" * 20), size),
        "animated PNG": (saved(image, "PNG", save_all=True, append_images=[image.rotate(90)]), size),
        "animated WebP": (saved(image, "WEBP", save_all=True, append_images=[image.rotate(90)]), size),
        "huge text": (text_bomb(64), (64, 64)),
        "JPEG and ZIP": (polyglot(photo), size),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = size if orientation < 5 else size[::-1]
        files[f"orientation {orientation}"] = (saved(image, "JPEG", exif=exif), upright)
    return files
