"""The weights that come with the repository: whole, and good for what they are for."""

from pathlib import Path

import numpy as np
import pytest

from keras_matting.model_folder import Preset
from keras_matting.models.folder import load_model, weights_digest
from keras_matting.photos import imaging, samples

# A dark T-shirt with a print, flat on a light cloth, in the middle of the photo and nowhere near its edges.
GARMENT = "1edea599-fab0-4dfb-8f26-0b01e131f776.jpg"
MODEL_DIR = Path(__file__).parents[1] / "saved_models" / "u2netp_clothing"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL_DIR)


def test_the_committed_weights_are_those_that_their_preset_names(model):
    preset = Preset.load(MODEL_DIR)
    assert preset.weights_sha256 == weights_digest(model)
    assert (preset.name, preset.architecture, preset.output) == ("u2netp_clothing", "u2netp", "identity")


def test_a_garment_on_a_sheet_is_taken_whole_and_the_sheet_is_left(model):
    photo = samples.sample_photos()[GARMENT]
    preset = Preset.load(MODEL_DIR)
    matte = model.predict(imaging.prepare(photo, preset)[None], verbose=0)["matte"]
    found = imaging.restore(matte[0], photo, preset)
    height, width = found.shape
    middle = found[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5]
    edge = np.concatenate([found[: height // 50].ravel(), found[-height // 50 :].ravel()])
    assert middle.min() > 0.9 and edge.mean() < 0.02
    assert 0.2 < found.mean() < 0.6
    assert np.mean((found > 0.1) & (found < 0.9)) < 0.05  # it is sure
