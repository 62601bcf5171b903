import io

import cv2
import numpy as np
import pytest
from PIL import Image

from keras_matting.photos import files as photo_files
from keras_matting.photos import marks

MARK = {"kind": "rgba", "name": marks.name_digest("a.jpg")}


@pytest.mark.parametrize(
    ("extension", "channels"),
    [(".png", 1), (".png", 3), (".png", 4), (".jpg", 1), (".jpg", 3), (".webp", 1), (".webp", 3), (".webp", 4)],
)
@pytest.mark.parametrize("size", [(1, 1), (33, 50)])
@pytest.mark.parametrize("icc", [None, b"p" * 16 + b"RGB " + b"p" * 300])
def test_a_mark_is_read_back_and_changes_no_pixel(tmp_path, extension, channels, size, icc):
    image = (
        np.random.default_rng(0).integers(0, 255, (*size, channels), dtype=np.uint8).squeeze(2 if channels == 1 else ())
    )
    data = photo_files.encode(image, extension, icc)
    marked = marks.marked(data, MARK)
    (tmp_path / "x").write_bytes(marked)
    assert marks.read_mark(tmp_path / "x") == MARK
    assert photo_files.probe(marked) == photo_files.probe(data)
    before, after = (cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_UNCHANGED) for one in (data, marked))
    np.testing.assert_array_equal(after, before)
    before, after = (Image.open(io.BytesIO(one)) for one in (data, marked))
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    assert after.info.get("icc_profile") == before.info.get("icc_profile")


def test_files_without_a_mark_and_no_files_have_none(tmp_path):
    assert marks.read_mark(tmp_path / "none") is None
    for content in (b"", b"keras-matting\0", b"keras-matting\0{", b"keras-matting\0[1]"):
        (tmp_path / "x").write_bytes(content)
        assert marks.read_mark(tmp_path / "x") is None


def test_only_an_output_of_this_photo_is_own(tmp_path, photo):
    target = tmp_path / "x.png"
    assert marks.why_not_own(target, "a.jpg") is None
    data = photo_files.encode(photo, ".png")
    target.write_bytes(data)
    assert "was not made by keras-matting" in marks.why_not_own(target, "a.jpg")
    target.write_bytes(marks.marked(data, MARK))
    assert marks.why_not_own(target, "elsewhere/a.jpg") is None
    assert marks.why_not_own(target) is None
    assert "was made of another photo than b.jpg" in marks.why_not_own(target, "b.jpg")
