import io
import re

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
    assert MARK.items() <= marks.read_mark(tmp_path / "x").items()
    assert marks.why_not_own(tmp_path / "x", "a.jpg") is None
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
    assert "was not made by keras-matting" in str(marks.why_not_own(target, "a.jpg"))
    target.write_bytes(marks.marked(data, MARK))
    assert marks.why_not_own(target, "elsewhere/a.jpg") is None
    assert marks.why_not_own(target) is None
    assert "was made of another photo than b.jpg" in str(marks.why_not_own(target, "b.jpg"))


def test_an_output_is_of_a_photo_by_its_bytes_or_its_place(tmp_path, photo):
    data, target = photo_files.encode(photo, ".png"), tmp_path / "x.png"

    def is_own(photo, data):
        return marks.why_not_own(target, photo, data) is None

    target.write_bytes(marks.marked(data, marks.made_of("in/a.jpg", b"1")))
    assert is_own("in/a.jpg", b"1")
    assert is_own("in/a.jpg", b"2")  # the photo was edited
    assert is_own("moved/a.jpg", b"1")
    assert not is_own("moved/a.jpg", b"2")  # cameras call many photos alike
    assert not is_own("in/b.jpg", b"1")
    assert is_own(None, b"1") and not is_own(None, b"2")
    target.write_bytes(marks.marked(data, marks.made_of(None, b"1")))  # out of a stream
    assert is_own("in/a.jpg", b"1") and not is_own("in/a.jpg", b"2")
    target.write_bytes(marks.marked(data, MARK))  # an earlier version's
    assert is_own("in/a.jpg", b"1") and not is_own("in/b.jpg", b"1")


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
def test_an_output_that_was_retouched_is_not_replaced_and_a_damaged_one_is(tmp_path, photo, extension):
    target, mark = tmp_path / "x", marks.made_of("a.jpg", b"1")
    made = marks.marked(photo_files.encode(photo, extension), mark)
    retouched = marks.marked(photo_files.encode(255 - photo, extension), mark)
    digests = [re.search(rb'"made": "(\w+)"', data)[1] for data in (retouched, made)]
    target.write_bytes(retouched.replace(*digests))  # as an editor that keeps texts and comments
    assert "was changed since keras-matting made it" in str(marks.why_not_own(target, "a.jpg", b"1"))
    target.write_bytes(made[: len(made) * 2 // 3])
    assert marks.why_not_own(target, "a.jpg", b"1") is None
