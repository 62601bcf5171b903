import io
import os

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, half_mask, kinds, picture, save, write_pairs
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


def lopsided(size=(WIDTH, HEIGHT)):
    """A mask that no turn and no mirror leaves as it is."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 3, size[1] // 4))
    return mask


def shown(mask):
    """A photo whose edges are its mask's."""
    return Image.merge("RGB", [mask.point(lambda value: 60 + value // 2)] * 3)


def write_turned(data, stem, orientation, *, stored, photo=None, extension=".jpg", size=(WIDTH, HEIGHT)):
    """Write a photo that EXIF turns upright, to `size`, and its mask, upright or as the photo lies in its file."""
    as_stored = STORED[orientation]
    photo, mask = photo or picture(orientation, size), lopsided(size)
    save(photo.transpose(as_stored), data / "image" / f"{stem}{extension}", exif=exif(orientation))
    save(mask.transpose(as_stored) if stored else mask, data / "mask" / f"{stem}.png")


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def truths(source):
    return {sample.stem: read_sample(sample)[1] for sample in source.samples}


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(5, 9))
@pytest.mark.parametrize("stored", [False, True])
def test_photo_and_mask_are_upright_whichever_way_the_mask_was_drawn(read, data, orientation, stored, extension):
    write_turned(data, "a", orientation, stored=stored, extension=extension)
    (sample,) = read(data).samples
    assert sample.orientation == orientation
    rgb, alpha = read_sample(sample)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(alpha, np.asarray(lopsided()))


@pytest.mark.parametrize("stored", [False, True])
def test_masks_of_photos_that_are_converted_are_turned_likewise(read, data, stored):
    write_turned(data, "a", 6, stored=stored, photo=picture(mode="RGBA"), extension=".png")
    source = read(data)
    assert source.samples[0].orientation == 1
    np.testing.assert_array_equal(truths(source)["a"], np.asarray(lopsided()))


@pytest.mark.parametrize("extension", [".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", [3, 4, 6, 8])
@pytest.mark.parametrize("stored", [False, True])
def test_masks_of_other_formats_are_turned_likewise(read, data, orientation, stored, extension):
    size = 800, 600  # more than what is read of a file at first
    noisy = Image.fromarray(np.random.default_rng(1).integers(0, 99, (600, 800, 3), np.uint8))
    photo = Image.blend(noisy, shown(lopsided(size)), 0.7)
    write_turned(data, "a", orientation, stored=stored, photo=photo, extension=extension, size=size)
    source = read(data)
    assert source.problems == ()
    np.testing.assert_array_equal(truths(source)["a"], np.asarray(lopsided(size)))


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("stored", [False, True])
def test_a_mask_that_fits_both_ways_lies_as_the_others_do(read, data, orientation, stored):
    write_turned(data, "a", orientation, stored=stored)
    write_turned(data, "b", 6, stored=stored)
    source = read(data)
    assert source.problems == ()
    np.testing.assert_array_equal(truths(source)["a"], np.asarray(lopsided()))


@pytest.mark.parametrize("others", [[], [(6, True), (8, False)]], ids=["no others", "others that differ"])
def test_a_mask_of_which_nothing_tells_how_it_lies_is_left_out(read, data, others):
    write_turned(data, "a", 3, stored=True)
    for number, (orientation, stored) in enumerate(others):
        write_turned(data, f"b{number}", orientation, stored=stored)
    save(picture(9), data / "image" / "c.png")
    save(lopsided(), data / "mask" / "c.png")
    source = read(data)
    assert kinds(source) == [("ambiguous orientation", "a")]
    assert "EXIF orientation of 3" in source.problems[0].detail


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("stored", [False, True])
def test_the_photo_s_own_edges_tell_how_a_mask_lies(read, data, orientation, stored):
    size = (120, 120) if orientation > 4 else (150, 100)
    write_turned(data, "a", orientation, stored=stored, photo=shown(lopsided(size)), size=size)
    write_turned(data, "b", 6, stored=not stored)  # whatever the others are
    np.testing.assert_array_equal(truths(read(data))["a"], np.asarray(lopsided(size)))


def test_a_mask_that_its_photo_s_turn_leaves_as_it_is_is_no_problem(read, data):
    save(picture(), data / "image" / "a.jpg", exif=exif(3))
    save(Image.new("L", (WIDTH, HEIGHT)), data / "mask" / "a.png")
    assert read(data).problems == ()


def test_photos_without_truth_keep_their_orientation(read, data):
    save(picture(), data / "a.jpg", exif=exif(6))
    assert read(f"unlabelled:{data}").samples[0].orientation == 6


def test_an_orientation_behind_a_long_segment_is_found(read, data):
    file = io.BytesIO()
    picture().save(file, "JPEG", exif=exif(3))
    comments = b"\xff\xfe\xff\xff" + bytes(65533)
    (data / "image").mkdir(parents=True)
    (data / "image" / "a.jpg").write_bytes(file.getvalue()[:2] + comments * 2 + file.getvalue()[2:])
    save(FULL, data / "mask" / "a.png")
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
