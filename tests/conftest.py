import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import goldens
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser):
    """A slow machine leaves out what it has no time for, and says so, instead of being cut off with nothing to show."""
    parser.addoption("--long-until", type=float, metavar="TIME", help="begin no long test after this Unix time")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leave long tests out when the time is over, before their fixtures are made."""
    end = item.config.getoption("long_until")
    if end is not None and time.time() > end and item.get_closest_marker("long"):
        pytest.skip(f"{item.nodeid} not run: the time for long tests (--long-until) is over")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests share fixtures and run in one process; notebooks share none, and take minutes each."""
    from xdist.scheduler import LoadFileScheduling

    class FileByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "::test_a_notebook_runs" in nodeid else super()._split_scope(nodeid)

    return FileByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_data():
    """A folder of real photos beside the checkout; tests on it are extra."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED_DATA


def model_folder(tmp_path_factory, name, write):
    """Return a folder that `write` made. It writes once for all the processes of a parallel run; each has its copy."""
    own = tmp_path_factory.mktemp("models") / name
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (common / name).exists():
            write(own)
            shutil.copytree(own, common / f"{name}.partial")
            (common / f"{name}.partial").rename(common / name)
    if not own.exists():
        shutil.copytree(common / name, own)
    return own


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """A real, exported U2NetP of formula weights at 64x64."""
    from keras_matting.architectures import IMAGENET
    from keras_matting.export import export
    from keras_matting.model_folder import Preset
    from keras_matting.models import build_model
    from keras_matting.models.folder import write_model_folder
    from keras_matting.weights.pytorch import load_state_dict

    def write(folder):
        model = build_model("u2netp", 64)
        load_state_dict(model, goldens.formula_state_dict("u2netp"))
        preset = Preset(name="tiny", architecture="u2netp", input_size=(64, 64), output="min-max", **IMAGENET)
        write_model_folder(model, preset, folder)
        export(folder)

    return model_folder(tmp_path_factory, "tiny", write)


@pytest.fixture(scope="session")
def modnet_dir(tmp_path_factory):
    """MODNet with fresh weights, exported at 64x64."""
    from dataclasses import replace

    from keras_matting.architectures import default_preset
    from keras_matting.export import export
    from keras_matting.models import build_model
    from keras_matting.models.folder import write_model_folder

    def write(folder):
        preset = replace(default_preset("modnet", "modnet"), input_size=(64, 64))
        write_model_folder(build_model("modnet", 64), preset, folder)
        export(folder)

    return model_folder(tmp_path_factory, "modnet", write)


@pytest.fixture(scope="session")
def one_layer_dir(tmp_path_factory):
    """An exported model of one convolution at 64x64, for what does not depend on the architecture."""
    import keras

    from keras_matting.export import export
    from keras_matting.foreign import write_keras_folder

    def write(folder):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((64, 64, 3)), keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")]
        write_keras_folder(keras.Sequential(layers), "one_layer", folder)
        export(folder)

    return model_folder(tmp_path_factory, "one_layer", write)


@pytest.fixture(scope="session")
def red_model_dir(tmp_path_factory):
    """An exported model at 64x64 to which what has much red is the subject: the disc of `photo`."""
    import keras

    from keras_matting.export import export
    from keras_matting.foreign import write_keras_folder

    def write(folder):
        model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(1, 1, activation="sigmoid")])
        model.layers[0].set_weights([np.array([20, 0, 0], np.float32).reshape(1, 1, 3, 1), np.zeros(1, np.float32)])
        write_keras_folder(model, "red", folder)
        export(folder)

    return model_folder(tmp_path_factory, "red", write)


@pytest.fixture
def photo():
    """An RGB uint8 array with a bright disc on dark ground, 90 high, 120 wide."""
    rows, columns = np.mgrid[:90, :120]
    disc = (rows - 45) ** 2 + (columns - 60) ** 2 < 900
    return np.where(disc[..., None], (200, 100, 50), (20, 40, 30)).astype(np.uint8)


@pytest.fixture
def write_photo(photo):
    """Write the photo to a path, in the format of its extension, and return the path."""
    from keras_matting.photos.files import encode

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo, path.suffix))
        return path

    return write


@pytest.fixture
def jpeg(photo):
    """A small photo's JPEG bytes."""
    from keras_matting.photos.files import encode

    return encode(photo, ".jpg")


@pytest.fixture
def request_bytes(jpeg):
    """A whole request for that photo's cut-out, as it goes over the wire."""
    return b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(jpeg), jpeg)


@pytest.fixture
def tiny_model():
    """While a test runs, "tiny" is a model that can be trained."""
    import tiny

    tiny.register()
    yield
    tiny.unregister()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of small photos and their masks."""
    import tiny

    return tiny.write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from browser import open_browser

    browser = open_browser()
    yield browser
    browser.quit()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open the page of a service; afterwards, nothing but what a test announces may have been complained about."""
    from browser import REFUSED, Page

    opened = []

    def open_page(url):
        browser.get_log("browser")
        downloads = tmp_path / "downloads"
        behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        opened.append(Page(browser, url, downloads))
        return opened[-1]

    yield open_page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for page in opened:
        assert page.js("return window.refused") == []
        assert [entry for entry in browser.get_log("browser") if not REFUSED.search(entry["message"])] == []


@pytest.fixture
def shirt(write_photo, tmp_path):
    """A photo's file."""
    return write_photo(tmp_path / "shirt.jpg")


@pytest.fixture
def renamed(tmp_path):
    """Copy a model folder, so that it goes by another name, and return the copy."""

    def copy(folder, name):
        target = shutil.copytree(folder, tmp_path / name)
        preset = json.loads((target / "preset.json").read_text())
        (target / "preset.json").write_text(json.dumps({**preset, "name": name}))
        return target

    return copy
