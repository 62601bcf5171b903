"""The command where a process has less than usual: no home, closed streams, input that does not come."""

import io
import os
import pwd
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from PIL import Image
from waiting import wait_until

from keras_matting import model_folder
from keras_matting.cli import main
from keras_matting.errors import UsageError
from keras_matting.photos import refine
from keras_matting.weights import pretrained
from keras_matting.weights.fetch import fetch_on_demand

MODULE = [sys.executable, "-m", "keras_matting"]


@pytest.fixture
def homeless(monkeypatch):
    """A user without an entry in passwd, and HOME not set (fault: home_unset)."""

    def none(uid):
        raise KeyError(uid)

    for name in ("HOME", "KERAS_MATTING_HOME", "U2NET_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", none)


@pytest.mark.parametrize("engine", ["onnx-cpu", "openvino-f32"])
def test_a_model_folder_needs_no_home(homeless, one_layer_dir, tmp_path, write_photo, engine):
    photo, target = write_photo(tmp_path / "a.jpg"), tmp_path / "a.png"
    words = ["predict", photo, target, "--model", one_layer_dir, "--engine", engine, "--quiet"]
    assert main(list(map(str, words))) == 0
    assert target.exists()


def test_a_model_that_has_to_be_kept_in_a_home_says_what_to_set(homeless, tmp_path, write_photo, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = str(write_photo(tmp_path / "a.jpg"))
    for name, told in (("u2netp", "Set KERAS_MATTING_HOME to a folder"), ("u3", "Expected a model folder")):
        assert main(["predict", photo, "--model", name, "--engine", "onnx-cpu"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_a_file_is_fetched_without_a_home(homeless):
    entry = next(iter(pretrained.PRETRAINED.values()))
    assert next(pretrained._sources(entry, None))[0] == entry.url


def test_a_home_that_cannot_be_looked_into_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "file" / ("x" * 300)))
    assert model_folder.find_model_dir("u2netp-of-nobody") is None


def test_a_home_that_cannot_be_written_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UsageError, match=r"received: .*\. Set KERAS_MATTING_HOME to a folder that can be written\.$"):
        fetch_on_demand("u2netp")


def test_a_home_may_be_written_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_MATTING_HOME", "~/models")
    assert model_folder.models_home() == tmp_path / "models"


def test_no_place_for_what_pymatting_compiles_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "pymatting.py").write_text("raise RuntimeError('cannot cache function: no locator available')")
    monkeypatch.delitem(sys.modules, "pymatting", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    matte = np.full((4, 4), 0.5)
    with pytest.raises(UsageError, match="Set NUMBA_CACHE_DIR to a folder that can be written"):
        refine.estimate_foreground(np.zeros((4, 4, 3), np.uint8), matte)


def predict(*words):
    return [*MODULE, "predict", *map(str, words), "--engine", "onnx-cpu", "--quiet"]


def test_a_closed_standard_error_leaves_standard_output_alone(one_layer_dir, jpeg):
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *predict("-", "--model", one_layer_dir)]
    done = subprocess.run(command, input=jpeg, stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(done.stdout)).size == (120, 90)


def test_the_package_runs_as_a_module():
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def opened(fifo, writers):
    """Tell whether a reader waits at a FIFO, and if so keep it open for writing."""
    try:
        writers.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # ENXIO: nobody reads it
        return False
    return True


def test_a_fifo_is_read_as_a_stream(one_layer_dir, fifo, jpeg, tmp_path):
    target = tmp_path / "out.png"
    process = subprocess.Popen(predict(fifo, target, "--model", one_layer_dir), stderr=subprocess.PIPE)
    fifo.write_bytes(jpeg)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert Image.open(io.BytesIO(target.read_bytes())).size == (120, 90)


@pytest.mark.parametrize("what", ["photo", "background"])
def test_sigterm_ends_a_command_that_waits_for_a_fifo(one_layer_dir, fifo, write_photo, tmp_path, what):
    photo, more = (fifo, []) if what == "photo" else (write_photo(tmp_path / "a.jpg"), ["--output", "on-image", fifo])
    command = predict(photo, tmp_path / "out.png", "--model", one_layer_dir, *more)
    process, writers = subprocess.Popen(command, stderr=subprocess.PIPE, text=True), []
    try:
        wait_until(lambda: opened(fifo, writers), timeout_s=120)
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        for writer in writers:
            os.close(writer)
    assert (process.returncode, "interrupted" in told) == (130, True), told
