import io
import os

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, half_mask, picture, save, write_pairs
from PIL import Image

from keras_matting.data.sources import read_sample, read_source

FULL = Image.new("L", (WIDTH, HEIGHT), 255)


@pytest.fixture
def read(tmp_path):
    """Read a spec with a cache of the test's own."""
    return lambda spec: read_source(str(spec), tmp_path / "cache")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_photo_is_upright_where_that_fits_its_mask(read, data, orientation, extension):
    size = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    save(picture(size=size), data / "image" / f"a{extension}", exif=exif(orientation))
    save(half_mask(), data / "mask" / "a.png")
    (sample,) = read(data).samples
    assert sample.orientation == orientation
    assert read_sample(sample)[0].shape == (HEIGHT, WIDTH, 3)


def test_a_photo_whose_mask_fits_only_unrotated_is_read_without_its_orientation(read, data):
    stored = picture()
    save(stored, data / "image" / "a.jpg", exif=exif(6), quality=95)
    save(half_mask(), data / "mask" / "a.png")
    (sample,) = read(data).samples
    assert sample.orientation == 1
    as_stored = Image.open(data / "image" / "a.jpg")
    np.testing.assert_allclose(read_sample(sample)[0], np.asarray(as_stored, np.int16), atol=3)


def test_photos_without_truth_keep_their_orientation(read, data):
    save(picture(), data / "a.jpg", exif=exif(6))
    assert read(f"unlabelled:{data}").samples[0].orientation == 6


def test_an_orientation_behind_a_long_segment_is_found(read, data):
    file = io.BytesIO()
    picture().save(file, "JPEG", exif=exif(3))
    comments = b"\xff\xfe\xff\xff" + bytes(65533)
    (data / "image").mkdir(parents=True)
    (data / "image" / "a.jpg").write_bytes(file.getvalue()[:2] + comments * 2 + file.getvalue()[2:])
    save(half_mask(), data / "mask" / "a.png")
    assert read(data).samples[0].orientation == 3


# Conversion


def test_files_that_every_reader_can_read_are_used_in_place(read, data, tmp_path):
    write_pairs(data, ["a.jpg"])
    save(picture(1).quantize(8), data / "image" / "b.png")
    save(half_mask().convert("1"), data / "mask" / "b.png")
    assert len(read(data).samples) == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("extension", [".webp", ".tif", ".bmp"])
def test_photos_that_tensorflow_cannot_read_become_png(read, data, extension):
    save(picture(), data / "image" / f"a{extension}", **({"lossless": True} if extension == ".webp" else {}))
    save(half_mask(), data / "mask" / "a.png")
    (sample,) = read(data).samples
    assert sample.image.read_bytes()[:4] == b"\x89PNG"
    np.testing.assert_array_equal(read_sample(sample)[0], np.asarray(picture()))


def test_a_transparent_photo_is_shown_on_white(read, data):
    photo = Image.new("RGBA", (WIDTH, HEIGHT), (200, 100, 50, 0))
    save(photo, data / "a.png")
    (sample,) = read(f"unlabelled:{data}").samples
    rgb, alpha = read_sample(sample)
    assert alpha is None
    assert (rgb == 255).all()


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("a.tif", half_mask()),
        ("a.bmp", half_mask()),
        ("a.png", half_mask().convert("RGB")),
        ("a.png", Image.merge("LA", (FULL, half_mask()))),
        ("a.png", Image.merge("RGBA", (FULL, FULL, FULL, half_mask()))),
        ("a.png", Image.fromarray(np.asarray(half_mask()).astype(np.uint16) * 257)),
        ("a.png", half_mask().quantize(2)),
    ],
    ids=["tiff", "bmp", "rgb", "grey and alpha", "rgba", "16 bits", "palette"],
)
def test_a_mask_of_any_format_becomes_8_bit_grey(read, data, name, mask):
    save(picture(), data / "image" / "a.jpg")
    save(mask, data / "mask" / name)
    (sample,) = read(data).samples
    stored = Image.open(sample.alpha)
    assert (stored.format, stored.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(half_mask()))


def test_a_mask_with_a_transparent_grey_is_its_alpha(read, data):
    save(picture(), data / "image" / "a.jpg")
    save(FULL.point(lambda _: 9), data / "mask" / "a.png", transparency=9)
    assert read_sample(read(data).samples[0])[1].max() == 0


def test_a_conversion_is_reused_until_its_file_changes(read, data):
    save(picture(), data / "a.bmp")
    first = read(f"unlabelled:{data}").samples[0].image
    written = first.stat().st_mtime_ns
    assert read(f"unlabelled:{data}").samples[0].image == first
    assert first.stat().st_mtime_ns == written
    save(picture(1), data / "a.bmp")  # of the same length
    os.utime(data / "a.bmp", ns=(written - 10**10,) * 2)  # older than its copy, by more than any disk rounds
    changed = read(f"unlabelled:{data}").samples[0]
    np.testing.assert_array_equal(read_sample(changed)[0], np.asarray(picture(1)))
