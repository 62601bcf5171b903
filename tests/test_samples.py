import sys
from itertools import combinations

import numpy as np
import pytest

from keras_matting.engines.base import photo_sha256
from keras_matting.photos import samples


def thumbnail(photo):
    """Return a photo as 12x12 grey values without mean and scale."""
    import cv2

    grey = cv2.cvtColor(cv2.resize(photo.rgb, (12, 12), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(float)
    return (grey - grey.mean()) / grey.std()


@pytest.fixture(scope="module")
def halves():
    return {half: samples.sample_photos(half) for half in samples.HALVES}


def test_the_halves_share_no_photo_and_none_that_looks_the_same(halves):
    photos = {(half, name): photo for half, named in halves.items() for name, photo in named.items()}
    assert len({photo_sha256(photo.rgb) for photo in photos.values()}) == len(photos)
    thumbnails = {key: thumbnail(photo) for key, photo in photos.items()}
    for one, other in combinations(thumbnails, 2):
        assert np.mean(thumbnails[one] * thumbnails[other]) < 0.95, (one, other)  # their correlation


def test_garments_come_with_the_package_and_people_and_things_with_scikit_image(halves, monkeypatch):
    for half, photos in halves.items():
        assert {photo.rgb.shape[2] for photo in photos.values()} == {3}
        assert sum(name.endswith(".jpg") for name in photos) == 24
        monkeypatch.setitem(sys.modules, "skimage", None)
        assert set(samples.sample_photos(half)) == {name for name in photos if name.endswith(".jpg")}
        assert len(samples.demo_photos()) == 3
        monkeypatch.undo()
    assert "astronaut" in samples.demo_photos()


def test_the_photos_name_their_source_and_licence():
    text = (samples.FOLDER / "README.md").read_text()
    assert "Alexey Grigorev" in text
    assert "CC0 1.0" in text
    assert "CC0 1.0 Universal" in (samples.FOLDER / "LICENSE").read_text()
    files = [path for path in samples.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
