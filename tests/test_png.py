import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from keras_matting.photos import png


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (6, 9, 3), (300, 1, 4), (5, 8, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_is_written_is_read_by_opencv(shape, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    read = cv2.imdecode(np.frombuffer(png.encode(image), np.uint8), cv2.IMREAD_UNCHANGED)
    if read.ndim == 3:
        read = cv2.cvtColor(read, cv2.COLOR_BGR2RGB if read.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_a_view_is_written_as_it_looks():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 4), np.uint8)[::2, ::-3, :3]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.encode(image)))), image)


def test_a_whole_file_with_its_profile_is_read_by_pillow():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png.encode(np.zeros((4, 4, 3), np.uint8), profile)
    Image.open(io.BytesIO(data)).verify()  # every chunk's checksum
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile


def test_a_photo_s_file_is_no_larger_than_zlib_s(photo):
    cut_out = np.dstack(
        [cv2.GaussianBlur(cv2.resize(photo, None, fx=4, fy=4), (0, 0), 3), np.full((360, 480), 255, "u1")]
    )
    noisy = cut_out + np.random.default_rng(0).integers(0, 6, cut_out.shape, np.uint8)
    by_zlib = cv2.imencode(".png", noisy, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    assert len(png.encode(noisy)) < 1.05 * len(by_zlib)
