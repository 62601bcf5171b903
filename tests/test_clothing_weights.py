"""The weights that come with the repository: whole, and good for what they are for."""

from pathlib import Path

import numpy as np
import pytest

from keras_matting.model_folder import Preset
from keras_matting.models.folder import load_model, weights_digest
from keras_matting.photos import imaging, samples
from keras_matting.photos.photo import Photo
from keras_matting.shipped import SHIPPED

# A dark T-shirt with a print, flat on a light cloth, in the middle of the photo and nowhere near its edges.
GARMENT = "1edea599-fab0-4dfb-8f26-0b01e131f776.jpg"
MODELS = Path(__file__).parents[1] / "saved_models"


@pytest.fixture(scope="module", params=SHIPPED)
def model_dir(request):
    return MODELS / request.param


@pytest.fixture(scope="module")
def model(model_dir):
    return load_model(model_dir)


def test_the_committed_weights_are_those_that_their_preset_names(model, model_dir):
    preset = Preset.load(model_dir)
    assert preset.weights_sha256 == weights_digest(model)
    assert (preset.name, preset.output) == (model_dir.name, "identity")
    assert preset.name == f"{preset.architecture}_clothing"


def test_a_garment_on_a_sheet_is_taken_whole_and_the_sheet_is_left(model, model_dir):
    found = matte(model, samples.sample_photos()[GARMENT], Preset.load(model_dir))
    height, width = found.shape
    middle = found[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5]
    edge = np.concatenate([found[: height // 50].ravel(), found[-height // 50 :].ravel()])
    assert middle.min() > 0.9 and edge.mean() < 0.05
    assert 0.2 < found.mean() < 0.6
    assert np.mean((found > 0.1) & (found < 0.9)) < 0.05  # it is sure


def test_nothing_is_taken_of_a_wall(model, model_dir):
    """What has learned from clothing alone looks for some on every photo."""
    wall = Photo(np.full((400, 300, 3), 128, np.uint8))
    assert matte(model, wall, Preset.load(model_dir)).mean() < 0.01


def matte(model, photo, preset):
    """Return a photo's matte at its size, float32 (H, W)."""
    found = model.predict(imaging.prepare(photo, preset)[None], verbose=0)["matte"]
    return imaging.restore(found[0], photo, preset)
