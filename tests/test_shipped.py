"""Weights that come with the package: found wherever it is installed, copied and exported at their first use."""

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from keras_matting import open_session
from keras_matting.cli import main
from keras_matting.errors import UsageError
from keras_matting.foreign import write_keras_folder
from keras_matting.model_folder import Preset
from keras_matting.models.folder import load_model
from keras_matting.shipped import DEFAULT_MODEL, PLAIN_NAMES, SHIPPED, SHIPPED_FILES, WHOLE_SUBJECT_MODEL, shipped_dir
from keras_matting.weights import fetch, pretrained
from keras_matting.weights.fetch import ready_model_dir

MAX_BYTES = 25_000_000  # of all that is committed
EXPORTS = {"model.onnx", "saved_model", "export.json"}


def write_weights(folder, seed):
    """Write a model of one convolution, as `DEFAULT_MODEL`, with other weights for each seed."""
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")]
    write_keras_folder(keras.Sequential(layers), DEFAULT_MODEL, folder, force=True)
    replace(Preset.load(folder), weights_sha256=str(seed)).save(folder)
    (folder / "MODEL_CARD.md").write_text("# A model\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation whose shipped weights are tiny, the user in an empty folder, and no way to any other weights."""

    def no_network(*_):
        raise AssertionError("nothing has to be fetched")

    folder = tmp_path / "site-packages" / "keras_matting_models" / DEFAULT_MODEL
    write_weights(folder, 1)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pretrained, "download", no_network)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def checkout(installed):
    """The user in a checkout of the same weights."""
    return Path(shutil.copytree(installed, Path("saved_models") / DEFAULT_MODEL))


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def kernel_of(folder):
    return load_model(folder).layers[-1].kernel.numpy()


def matte_of(folder):
    with open_session(folder, "onnx-cpu") as session:
        return session.predict(np.full((1, 32, 32, 3), 0.5, np.float32))


def test_an_installed_model_is_copied_home_and_exported_there(installed, tmp_path):
    with open_session(engine="onnx-cpu") as session:
        assert session.model_dir == tmp_path / "home" / DEFAULT_MODEL
    assert names_in(session.model_dir) == EXPORTS | set(SHIPPED_FILES)
    assert names_in(installed) == set(SHIPPED_FILES)  # it may be read-only


def test_a_checkout_s_model_is_exported_where_it_stands_and_once(checkout, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ready_model_dir, [DEFAULT_MODEL, str(checkout)])) == [checkout, checkout]
    assert ready_model_dir(DEFAULT_MODEL) == checkout
    assert [line for line in caplog.messages if "exporting" in line] == [
        f"{DEFAULT_MODEL}: exporting for the engines, once"
    ]
    assert names_in(checkout) == EXPORTS | set(SHIPPED_FILES)
    assert not (tmp_path / "home").exists()


def test_a_checkout_that_brings_other_weights_is_exported_anew(checkout):
    old = matte_of(checkout)
    shutil.rmtree(checkout / "saved_model")
    write_weights(checkout.parent / "update", 2)
    for name in SHIPPED_FILES:
        shutil.copyfile(checkout.parent / "update" / name, checkout / name)
    assert np.abs(matte_of(checkout) - old).max() > 1e-3


def test_an_installation_that_brings_other_weights_replaces_the_copy_at_home(installed):
    home = ready_model_dir(DEFAULT_MODEL)
    write_weights(installed, 2)
    assert ready_model_dir(DEFAULT_MODEL) == home
    assert Preset.load(home).weights_sha256 == "2"
    np.testing.assert_array_equal(kernel_of(home), kernel_of(installed))


def test_a_checkout_that_cannot_be_written_is_exported_at_home_and_once(checkout, tmp_path, monkeypatch, caplog):
    require_writable = fetch.require_writable

    def read_only(folder):
        if folder == checkout:
            raise UsageError("Expected to write")
        require_writable(folder)

    monkeypatch.setattr(fetch, "require_writable", read_only)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert ready_model_dir(DEFAULT_MODEL) == tmp_path / "home" / DEFAULT_MODEL
    assert len([line for line in caplog.messages if "exporting" in line]) == 1
    assert names_in(checkout) == set(SHIPPED_FILES)


def test_fetch_copies_what_is_shipped(installed, capsys):
    assert main(["fetch", DEFAULT_MODEL]) == 0
    folder = Path("saved_models") / DEFAULT_MODEL
    assert all((folder / name).read_bytes() == (installed / name).read_bytes() for name in SHIPPED_FILES)
    assert main(["fetch", DEFAULT_MODEL]) == 2
    assert "exists; choose another folder" in capsys.readouterr().err
    assert main(["fetch", DEFAULT_MODEL, "--out", "other", "--file", "weights.onnx"]) == 2
    assert "Leave --file out." in capsys.readouterr().err


def test_fetch_leaves_the_shipped_folder_itself_as_it_is(installed, capsys):
    (installed / "curves.png").touch()
    assert main(["fetch", DEFAULT_MODEL, "--out", str(installed), "--force"]) == 0
    assert "here already" in capsys.readouterr().err
    assert names_in(installed) == {*SHIPPED_FILES, "curves.png"}


def test_an_installation_without_weights_says_so(installed, monkeypatch, capsys, write_photo, tmp_path):
    monkeypatch.setattr(fetch, "shipped_dir", lambda name: None)
    assert main(["predict", str(write_photo(tmp_path / "a.jpg"))]) == 2
    assert f"Expected the weights of {DEFAULT_MODEL} in this installation" in capsys.readouterr().err


def test_exporting_without_tensorflow_says_what_to_install(checkout, monkeypatch):
    find_spec = fetch.find_spec
    monkeypatch.setattr(fetch, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    with pytest.raises(UsageError, match=r"not exported .* needs tensorflow: pip install 'keras-matting\[cpu\]'"):
        ready_model_dir(DEFAULT_MODEL)


@pytest.mark.parametrize("name", SHIPPED)
def test_keras_itself_loads_what_is_shipped_once_the_models_are_imported(name):
    code = "import sys, keras, keras_matting.models; print(keras.models.load_model(sys.argv[1]).output['matte'].shape)"
    command = [sys.executable, "-c", code, str(shipped_dir(name) / "model.keras")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(None, ")


def test_a_run_starts_from_the_shipped_weights_without_a_copy(installed):
    from keras_matting.cli.training import _start

    assert Path(_start(DEFAULT_MODEL)) == installed


def test_packages_and_images_carry_what_is_shipped_and_git_keeps_it():
    wanted = {f"{name}/{file}" for name in SHIPPED for file in SHIPPED_FILES}
    packaged = (ROOT / "setup.cfg").read_text().split("keras_matting_models =")[-1].split("\n\n")[0].split()
    assert set(packaged) == wanted
    sent = (ROOT / ".dockerignore").read_text().split()
    assert {word.removeprefix("!saved_models/") for word in sent if word.startswith("!saved_models/")} == wanted
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    for name in SHIPPED:
        paths = [f"saved_models/{name}/{file}" for file in (*SHIPPED_FILES, "curves.png", "model.onnx", "engines/x/y")]
        command = ["git", "check-ignore", "--no-index", *paths]
        ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
        assert ignored == paths[-2:]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_whole(name):
    folder = ROOT / "saved_models" / name
    assert all((folder / file).is_file() for file in SHIPPED_FILES)
    assert Preset.load(folder).name == name
    load_model(folder)  # raises where the weights have another digest than the preset says


def test_what_is_shipped_is_small_and_has_plain_names():
    sizes = [(ROOT / "saved_models" / name / file).stat().st_size for name in SHIPPED for file in SHIPPED_FILES]
    assert sum(sizes) < MAX_BYTES
    assert all(PLAIN_NAMES[name] for name in (*SHIPPED, WHOLE_SUBJECT_MODEL))
    assert shipped_dir(WHOLE_SUBJECT_MODEL) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_the_terms_of_what_comes_along_are_told_where_people_look(name):
    terms, _, _ = Preset.load(ROOT / "saved_models" / name).licence.partition(":")
    assert terms
    for page in ("README.md", "docs/clothing.md", "docs/shop.md", f"saved_models/{name}/MODEL_CARD.md"):
        assert terms in (ROOT / page).read_text(encoding="utf-8"), page
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    told = {path for pattern in config["metadata"]["license_files"].split() for path in ROOT.glob(pattern)}
    assert ROOT / "saved_models" / name / "MODEL_CARD.md" in told
