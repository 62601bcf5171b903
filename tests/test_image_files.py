import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from keras_matting.errors import ImageError, UsageError
from keras_matting.photos import files as photo_files
from keras_matting.photos.files import decode, encode, probe, scale_to_8_bits

ORANGE, GREEN = (200, 100, 50), (10, 220, 30)


@pytest.fixture
def image():
    """A PIL image, 60 wide and 40 high, whose left half is orange and whose top is green."""
    array = np.zeros((40, 60, 3), np.uint8)
    array[:, :30] = ORANGE
    array[:10] = GREEN
    return Image.fromarray(array)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_each_format_is_read_and_its_size_known_before_decoding(image, kind):
    data = saved(image, kind)
    assert probe(data)[1:] == (60, 40)
    photo = decode(data)
    assert photo.rgb.shape == (40, 60, 3)
    np.testing.assert_allclose(photo.rgb[30, 5], ORANGE, atol=6)
    assert photo.alpha is None


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"exif": Image.Exif()}])
def test_each_webp_header_is_read(image, options):
    assert probe(saved(image, "WEBP", **options)) == ("WebP", 60, 40)
    assert probe(saved(image.convert("RGBA"), "WEBP", **options)) == ("WebP", 60, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_becomes_upright(image, kind, orientation):
    stored_by = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose that undoes it
    stored = image if stored_by is None else image.transpose(Image.Transpose(stored_by))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    photo = decode(saved(stored, kind, exif=exif, **options))
    assert photo.rgb.shape == (40, 60, 3)
    np.testing.assert_allclose(photo.rgb[30, 5], ORANGE, atol=12)
    np.testing.assert_allclose(photo.rgb[4, 50], GREEN, atol=12)


def test_a_corrupt_exif_block_is_ignored(image):
    data = saved(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(data).rgb.shape == (40, 60, 3)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(decode(cv2.imencode(".png", ramp)[1].tobytes()).rgb[..., 0], np.rint(ramp / 257))
    colour = np.dstack([ramp, ramp // 2, ramp // 4])
    rgb = decode(cv2.imencode(".png", colour)[1].tobytes()).rgb
    np.testing.assert_array_equal(rgb[..., 2], np.rint(ramp / 257))


@pytest.mark.parametrize("order", "<>")
def test_a_large_photo_is_scaled_band_by_band(order, monkeypatch):
    monkeypatch.setattr(photo_files, "_BAND_VALUES", 100)
    values = np.random.default_rng(0).integers(0, 65536, (37, 11, 3)).astype(f"{order}u2")
    np.testing.assert_array_equal(scale_to_8_bits(values), np.rint(values / 257))


def test_grey_cmyk_and_palette_become_rgb(image):
    assert decode(saved(image.convert("L"), "PNG")).rgb.shape == (40, 60, 3)
    assert decode(saved(image.convert("1"), "PNG")).rgb.shape == (40, 60, 3)
    cmyk = decode(saved(image.convert("CMYK"), "JPEG", quality=95)).rgb
    np.testing.assert_allclose(cmyk[30, 5], ORANGE, atol=6)
    palette = image.quantize(8)
    np.testing.assert_allclose(decode(saved(palette, "PNG")).rgb[30, 5], ORANGE, atol=6)
    transparent = decode(saved(palette, "PNG", transparency=palette.getpixel((50, 5))))
    assert transparent.alpha[5, 50] == 0
    assert transparent.alpha[30, 5] == 255


def test_alpha_is_kept_apart_from_the_hidden_colours(image):
    rgba = image.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    photo = decode(saved(rgba, "PNG"))
    np.testing.assert_array_equal(photo.rgb, np.asarray(image))
    np.testing.assert_array_equal(photo.alpha, np.asarray(rgba)[..., 3])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_half_transparent_colours_are_not_darkened(kind):
    data = saved(
        Image.new("RGBA", (40, 30), (200, 100, 50, 128)), kind, **({"lossless": True} if kind == "WEBP" else {})
    )
    photo = decode(data)
    np.testing.assert_allclose(photo.rgb[3, 3], (200, 100, 50), atol=2)
    assert photo.alpha[3, 3] == 128


@pytest.mark.parametrize("bits", [8, 4, 1])
def test_the_key_colour_of_a_grey_png_is_transparent(bits):
    grey = Image.new("L", (8, 8), 255)
    grey.paste(0, (0, 0, 4, 8))
    photo = decode(saved(grey.convert("1") if bits == 1 else grey, "PNG", transparency=0, bits=bits))
    assert (photo.alpha[0, 0], photo.alpha[0, 7]) == (0, 255)


def test_a_grey_tiff_with_alpha_is_read():
    photo = decode(saved(Image.new("LA", (8, 8), (200, 128)), "TIFF"))
    assert (photo.rgb[3, 3].tolist(), photo.alpha[3, 3]) == ([200, 200, 200], 128)


def test_a_repeated_size_tag_does_not_hide_a_bomb():
    data = bytearray(saved(Image.new("L", (2000, 2000)), "TIFF"))
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, offset)
    entries = [bytes(data[offset + 2 + 12 * i : offset + 14 + 12 * i]) for i in range(count)]
    small = [struct.pack(f"{order}HHII", tag, 4, 1, 10) for tag in (0x0100, 0x0101)]
    directory = struct.pack(f"{order}H", count + 2) + b"".join(sorted(entries + small, key=lambda e: e[:2])) + bytes(4)
    struct.pack_into(f"{order}I", data, 4, len(data))
    with pytest.raises(ImageError):
        decode(bytes(data) + directory, max_megapixels=0.01)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(image, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    data = saved(noise, kind)
    for length in (30, len(data) // 2, len(data) - 100):
        with pytest.raises(ImageError):
            decode(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"x", "received something else"),
        (b"hello, I am a text file", "received something else"),
        (b"RIFF1234WAVEfmt ", "received something else"),
        (b"\xff\xd8\xff", "cut off"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 9, "cut off"),
    ],
)
def test_what_is_no_image_is_refused(data, message):
    with pytest.raises(ImageError, match=message):
        decode(data)


def png_with_size(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_unpacked():
    with pytest.raises(ImageError, match=r"at most 150 megapixels; received 20000x20000 \(400\)"):
        decode(png_with_size(20_000, 20_000))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="0x0"):
        decode(png_with_size(0, 0))


def test_an_rgb_profile_is_carried_to_the_output_and_a_foreign_one_is_not(image):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = decode(saved(image, "JPEG", icc_profile=profile))
    for extension in (".png", ".jpg", ".webp"):
        result = Image.open(io.BytesIO(encode(photo.rgb, extension, photo.icc)))
        assert result.info["icc_profile"] == profile, extension
    grey = bytearray(profile)
    grey[16:20] = b"GRAY"
    assert decode(saved(image.convert("L"), "PNG", icc_profile=bytes(grey))).icc is None


def test_lossless_outputs_round_trip():
    rgba = np.random.default_rng(0).integers(0, 255, (30, 20, 4), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(rgba, ".png")))), rgba)
    rgba[..., 3] |= 1  # WebP may drop the colours of fully transparent pixels
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(rgba, ".webp")))), rgba)
    matte = np.arange(600, dtype=np.uint16).reshape(30, 20) * 100
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(matte, ".png")))), matte)


@pytest.mark.parametrize(
    ("shape", "dtype", "extension", "message"),
    [
        ((4, 4, 4), np.uint8, ".jpg", "no transparency"),
        ((4, 4), np.uint16, ".webp", "16-bit"),
        ((4, 4), np.uint8, ".gif", "received '.gif'"),
    ],
)
def test_a_format_that_cannot_hold_the_output_is_refused(shape, dtype, extension, message):
    with pytest.raises(UsageError, match=message):
        encode(np.zeros(shape, dtype), extension)


def test_scaling_takes_little_memory_beside_its_result():
    values = np.zeros((2000, 1500, 3), np.uint16)
    tracemalloc.start()
    scale_to_8_bits(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < values.size + 2**26


def test_photos_of_everyday_load_no_pillow(image):
    script = (
        "import sys\n"
        "from keras_matting.photos.files import decode\n"
        f"decode({saved(image, 'JPEG')!r}), decode({saved(image, 'PNG')!r}), decode({saved(image, 'WEBP')!r})\n"
        "assert not {'PIL', 'pillow_heif'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
