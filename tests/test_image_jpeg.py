"""JPEG: whole files are read however odd, half ones are refused however well they end."""

import io
import re
import struct
from pathlib import Path

import numpy as np
import odd_files
import pytest
from bad_photos import with_scans
from PIL import Image

from keras_matting.errors import ImageError
from keras_matting.photos.files import ScansError, decode, encode, probe
from keras_matting.photos.headers import jpeg_markers
from keras_matting.photos.jpeg import MAX_SCANS

ROWS, COLUMNS = np.mgrid[:90, :121]
NOISE = np.random.default_rng(0).integers(0, 60, (90, 121, 3))
PHOTO = (np.stack([COLUMNS + 40, ROWS * 2 + 10, COLUMNS + ROWS], axis=-1) % 190 + NOISE).astype(np.uint8)
END, SCAN = b"\xff\xd9", b"\xff\xda"


def jpeg(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, "JPEG", **{"quality": 90} | options)
    return file.getvalue()


def pixels(data):
    """Return what an independent decoder shows of a JPEG."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def assert_same(data, original, step=0):
    np.testing.assert_allclose(decode(data).rgb.astype(int), pixels(original).astype(int), atol=step)


KINDS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 5},
    "optimised": {"optimize": True},
    "RGB": {"keep_rgb": True},
    "grey": {"mode": "L"},
    "progressive grey": {"mode": "L", "progressive": True},
    "CMYK": {"mode": "CMYK"},
    "progressive CMYK": {"mode": "CMYK", "progressive": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(kind):
    data = jpeg(**KINDS[kind])
    assert_same(data, data, step=1 if "CMYK" in kind else 0)


ONE = (1, 1)
SAMPLINGS = {
    "4:4:0": ([(1, 2), ONE, ONE], {}),
    "4:1:1": ([(4, 1), ONE, ONE], {}),
    "4:1:0": ([(4, 2), ONE, ONE], {}),
    "4:4:1": ([(1, 4), ONE, ONE], {}),
    "thirds": ([(3, 1), ONE, ONE], {}),
    "finer colours": ([ONE, (2, 2), (2, 2)], {}),
    "mixed": ([(2, 2), (2, 1), (1, 2)], {}),
    "grey of a sampling": ([(2, 2)], {}),
    "RGB by its names": ([ONE] * 3, {"names": b"RGB"}),
    "odd names": ([(2, 2), ONE, ONE], {"names": (0, 34, 35)}),
    "RGB by Adobe's word": ([ONE] * 3, {"adobe": 0}),
    "unknown to Adobe": ([ONE] * 3, {"adobe": 7}),
    "CMYK without Adobe's word": ([ONE] * 4, {}),
    "CMYK": ([(2, 2), ONE, ONE, (2, 2)], {"adobe": 0}),
    "YCCK": ([(2, 2), ONE, ONE, (2, 2)], {"adobe": 2}),
}


@pytest.mark.parametrize("what", SAMPLINGS)
def test_every_sampling_and_kind_of_colours_is_read_whole_or_refused(what):
    samplings, options = SAMPLINGS[what]
    data = odd_files.jpeg(samplings, **options)
    assert_same(data, data, step=1 if len(samplings) == 4 else 0)
    assert_same(data[:-2], data, step=1 if len(samplings) == 4 else 0)
    start = data.index(SCAN) + 20
    for part in (0.2, 0.6, 0.9):
        for ending in (b"", END):
            with pytest.raises(ImageError, match="truncated or damaged"):
                decode(data[: start + int((len(data) - start) * part)] + ending)


ARITHMETIC = sorted((Path(__file__).parent / "data").glob("arithmetic*.jpg"))


@pytest.mark.parametrize("file", ARITHMETIC, ids=lambda file: file.stem)
def test_arithmetic_coding_is_read_whole_or_refused(file):
    """Zeros stand in for what is lost, without a warning: only a comparison tells."""
    data = file.read_bytes()
    for whole in (data, data[:-2], data[:-2] + b"\xff\xff" + END):
        assert_same(whole, data)
    expected, start = pixels(data).astype(int), data.index(SCAN) + 20
    for at in np.linspace(start, len(data) - 60, 25).astype(int):
        for ending in (b"", END, b"\xff" + END):
            try:
                rgb = decode(data[:at] + ending).rgb
            except ImageError as error:
                assert "truncated or damaged" in str(error)
                continue
            # What is left out of a flat end is not lost
            np.testing.assert_allclose(rgb.astype(int), expected, atol=1, err_msg=f"{at} {ending}")


@pytest.mark.parametrize("sampling", ["4:1:0", "thirds", "mixed"])
def test_an_odd_sampling_cut_after_any_byte_is_refused(sampling):
    """A last byte of FF would make a marker of what is appended."""
    data = odd_files.jpeg(SAMPLINGS[sampling][0], 400, 280, extreme=True)
    start = data.index(SCAN) + 20
    places = [at + 1 for at in range(start, len(data) - 40) if data[at] == 0xFF]
    assert len(places) > 5
    for at in places[:: max(1, len(places) // 20)]:
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[:at] + END)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_early_is_refused_whether_it_says_so_or_not(kind):
    """Fault: jpeg_ends_early_with_eoi."""
    data = jpeg(**KINDS[kind])
    first = data.index(SCAN)
    for part in (0.1, 0.5, 0.9, 1):
        cut = data[: min(first + int((len(data) - first) * part), len(data) - 16)]
        for ending in (b"", END, bytes(500), bytes(500) + END):
            with pytest.raises(ImageError, match="truncated or damaged"):
                decode(cut + ending)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_file_without_its_last_scans_is_refused(mode):
    data = jpeg(mode, progressive=True)
    scans = [at for marker, at in jpeg_markers(data) if marker == 0xDA]
    for at in scans:
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[:at] + END)
    if mode != "CMYK":  # whose black is empty, and its scans are a few bytes
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[: scans[-1] + 20] + END)


def test_a_part_removed_between_restarts_is_refused():
    data = jpeg(restart_marker_blocks=2)
    restarts = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    for removed in (1, 3, 8, 16):
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[: restarts[5]] + data[restarts[5 + removed] :])
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[: restarts[5] + 4] + data[restarts[6] :])


def test_garbage_among_the_pixels_is_refused():
    data = jpeg()
    middle = (data.index(SCAN) + len(data)) // 2
    for seed in range(8):
        garbage = np.random.default_rng(seed).integers(0, 255, 60, dtype=np.uint8).tobytes()
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[:middle] + garbage + data[middle + 200 :])


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_that_only_lacks_its_end_is_read(kind):
    """Fault: jpeg_readable_but_refused (jpg_no_eoi)."""
    data = jpeg(**KINDS[kind])
    assert data.endswith(END)
    for ending in (b"", bytes(500), b"\xff" * 3, b"\xff"):
        assert_same(data[:-2] + ending, data, step=1 if "CMYK" in kind else 0)


@pytest.mark.parametrize("stray", [b"\0", b"abc", bytes(700), b"\xff\xff", b"\xff\0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_stray_bytes_between_segments_are_skipped(stray, progressive):
    """Fault: jpeg_readable_but_refused (jpg_extraneous_bytes_before_dqt)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(exif=exif, progressive=progressive)
    header = [at for marker, at in jpeg_markers(data)]
    for at in header[: header.index(data.index(SCAN)) + 1]:
        if at > 2:
            odd = data[:at] + stray + data[at:]
            assert probe(odd) == ("JPEG", 121, 90)
            np.testing.assert_array_equal(decode(odd).rgb, decode(data).rgb)
    with pytest.raises(ImageError):
        decode((data[: header[1]] + stray + data[header[1] :])[:-300] + END)


@pytest.mark.parametrize("stray", [b"\0\0", bytes(3000), b"\x3f" * 40])
def test_padding_before_the_end_is_skipped(stray):
    data = jpeg()
    assert_same(data[:-2] + stray + END, data)


def test_what_follows_the_end_is_not_read():
    data = jpeg()
    for rest in (b"more", jpeg(quality=20), bytes(5000)):
        assert_same(data + rest, data)


def test_a_scan_whose_parameters_mean_nothing_is_read():
    data = jpeg()
    at = data.index(SCAN)
    (length,) = struct.unpack_from(">H", data, at + 2)
    odd = data[: at + 2 + length - 3] + bytes(3) + data[at + 2 + length :]
    assert_same(odd, data)


def test_an_unknown_version_of_jfif_is_read():
    data = jpeg()
    at = data.index(b"JFIF\0") + 5
    assert_same(data[:at] + b"\x02" + data[at + 1 :], data)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_more_scans_than_encoders_write_are_refused(mode):
    """Fault: service_progressive_scans."""
    data = jpeg(mode, progressive=True)
    with pytest.raises(ScansError, match=f"at most {MAX_SCANS} scans"):
        decode(with_scans(data, MAX_SCANS))
    baseline = jpeg(mode)
    start = baseline.index(SCAN)
    with pytest.raises(ScansError):
        decode(baseline[:-2] + baseline[start:-2] * MAX_SCANS + END)


def test_millions_of_empty_segments_are_refused():
    data = jpeg()
    with pytest.raises(ImageError, match="at most 10000 segments"):
        decode(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:])


def test_what_looks_like_a_scan_inside_a_segment_is_none():
    data = jpeg()
    thumbnail = SCAN * 500
    segment = b"\xff\xed" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    assert_same(data[:2] + segment + data[2:], data)


@pytest.mark.parametrize("size", [1, 200, 65_519, 65_520, 200_000, 255 * 65_519])
def test_a_profile_of_any_size_travels_in_several_segments(size):
    """Fault: icc_over_64k_jpg_output."""
    profile = bytes(16) + b"RGB " + np.random.default_rng(0).bytes(max(size - 20, 0))
    data = encode(PHOTO, ".jpg", profile)
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile
    assert decode(data).icc == profile
    assert pixels(data).shape == PHOTO.shape


def test_a_profile_that_no_jpeg_holds_is_refused_with_a_sentence():
    with pytest.raises(ImageError, match=r"at most 16707345 bytes for a JPEG.*PNG"):
        encode(PHOTO, ".jpg", bytes(255 * 65_519 + 1))


def test_a_profile_with_a_segment_missing_counts_as_none():
    data = encode(PHOTO, ".jpg", bytes(16) + b"RGB " + bytes(200_000))
    second = [at for marker, at in jpeg_markers(data) if marker == 0xE2][1]
    (length,) = struct.unpack_from(">H", data, second + 2)
    assert decode(data[:second] + data[second + 2 + length :]).icc is None


def test_twelve_bits_are_refused_by_name():
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="8 bits a channel; received 12"):
        decode(bytes(data))
