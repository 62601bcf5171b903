"""The official weights end to end, against the authors' own maps and against published parity."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from keras_matting import engines
from keras_matting.benchmarking import statistics
from keras_matting.benchmarking.selection import Gate, refusal
from keras_matting.engines import openvino as openvino_engine
from keras_matting.errors import WeightsError
from keras_matting.matting import OutputOptions, Session, read_photo
from keras_matting.model_folder import ONNX_FILE, Preset, find_model_dir
from keras_matting.photos import imaging
from keras_matting.photos.files import EXTENSIONS
from keras_matting.photos.samples import sample_photos

ROOT = Path(__file__).parents[1]
MAX_MEAN_DIFFERENCE = 1.5  # of 255; the authors' maps were saved by another runtime


def official_model_dir(name):
    """Return the exported folder of official weights, from `make demo` and the like, or skip."""
    folder = ROOT / "saved_models" / name
    if not (folder / "model.onnx").exists():
        folder = find_model_dir(name)
    if folder is None or not (folder / "model.onnx").exists():
        pytest.skip(f"official {name} is not here; run keras-matting fetch {name} and export")
    return folder


@pytest.mark.parametrize("engine", ["savedmodel", "onnx-cpu", "openvino-f32"])
@pytest.mark.parametrize("name", ["u2netp", pytest.param("u2net", marks=pytest.mark.long)])
def test_whole_path_reproduces_the_authors_maps(shared_data, name, engine):
    session = Session(official_model_dir(name), engine)
    photos = sorted(path for path in (shared_data / "u2net_official" / "image").iterdir() if path.suffix in EXTENSIONS)
    assert len(photos) == 9
    for path in photos:
        mask = session.matte(read_photo(path), OutputOptions("mask"))
        truth = cv2.imread(str(shared_data / "u2net_official" / name / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        difference = np.abs(mask.astype(float) - truth).mean()
        assert difference < MAX_MEAN_DIFFERENCE, f"{path.name}: {difference:.2f}"


def test_official_u2netp_cuts_the_astronaut_out():
    skimage_data = pytest.importorskip("skimage.data")
    session = Session(official_model_dir("u2netp"))
    from keras_matting.photos.files import Photo

    mask = session.matte(Photo(skimage_data.astronaut()), OutputOptions("mask"))
    assert mask[300, 230] > 250  # her suit
    assert mask[20, 480] < 5  # the shuttle's corner


def copy_of(official, folder):
    """Copy what engines are built from, so that a test leaves the official folder as it was."""
    folder.mkdir()
    for name in ("preset.json", "export.json", ONNX_FILE):
        shutil.copy(official / name, folder)
    return folder


def error_of(engine, folder):
    """Build an engine on the samples' one half and return how far its mattes of the other are from float32."""
    if reason := engines.build_unavailable_reason(engine):
        pytest.skip(reason)
    preset = Preset.load(folder)
    calibration, images = (
        np.stack([imaging.prepare(photo, preset) for photo in sample_photos(half).values()])
        for half in ("calibration", "gate")
    )

    def mattes(name):
        opened = engines.open_engine(name, folder)
        return np.stack([imaging.apply_output_rule(opened.predict(image[None])[0], preset) for image in images])

    engines.build(engine, folder, engines.BuildOptions(tuple(calibration[:, None])))
    return statistics.error(mattes(engine), mattes("onnx-cpu"))


@pytest.mark.long
def test_the_gate_admits_bfloat16(tmp_path):
    assert refusal(error_of("openvino-bf16", copy_of(official_model_dir("u2netp"), tmp_path / "model")), Gate()) is None


@pytest.mark.long
def test_the_gate_refuses_int8_of_the_whole_graph_and_admits_it_without_the_sensitive_layers(tmp_path, monkeypatch):
    folder = copy_of(official_model_dir("u2netp"), tmp_path / "model")
    assert refusal(error_of("openvino-int8", folder), Gate()) is None
    monkeypatch.setattr(openvino_engine, "sensitive_layers", lambda model_dir, precision: ())
    error = error_of("openvino-int8", folder)
    assert refusal(error, Gate()).startswith("mae 0.")
    assert error["mae"] > 10 * Gate().mae  # measured: .166


def test_a_damaged_download_is_refused(tmp_path):
    from keras_matting.weights.pretrained import download

    (tmp_path / "u2netp.onnx").write_bytes(b"not the file")
    with pytest.raises(WeightsError, match="SHA-256 is .* expected 309c8469"):
        download("u2netp", tmp_path / "..", local_file=tmp_path / "u2netp.onnx")
