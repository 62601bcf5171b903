"""Around a run: a disk that fills up under TensorBoard's logs, the command line, the card of what came of it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
import tiny

from keras_matting import models
from keras_matting.architectures import default_preset
from keras_matting.cli import main
from keras_matting.errors import MattingError
from keras_matting.models.folder import write_model_folder
from keras_matting.training.callbacks import telling_full_disk
from keras_matting.training.progress import Progress
from keras_matting.training.run import train
from keras_matting.training.settings import Settings
from keras_matting.training.strip import strip


@pytest.fixture
def progress(tmp_path):
    """The progress of a run that has done no epoch yet."""
    return Progress(tmp_path / "run", "val_miou")


def test_a_disk_that_is_full_for_tensorboard_is_one_sentence(tmp_path):
    script = (
        "import resource, signal, sys\n"
        "import keras, numpy as np\n"
        "from keras_matting.training.callbacks import telling_full_disk\n"
        "from keras_matting.training.progress import Progress\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "progress = Progress(sys.argv[1], 'val_miou')\n"
        "progress.state['epoch'] = 3\n"
        "model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])\n"
        "model.compile('sgd', 'mse')\n"
        "board = keras.callbacks.TensorBoard(progress.run_dir / 'tensorboard', histogram_freq=1, write_graph=False)\n"
        "zeros = np.zeros((8, 64))\n"
        "try:\n"
        "    with telling_full_disk(progress.run_dir / 'tensorboard', progress):\n"
        "        model.fit(zeros, zeros, epochs=99, callbacks=[board], verbose=0)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == (
        f"MattingError Expected to write into {tmp_path}/run/tensorboard; received: File too large. Free some space "
        "and continue with --resume: the checkpoint of epoch 3 is kept."
    ), done.stdout + done.stderr


@pytest.mark.long
def test_a_run_whose_logs_fill_the_disk_can_be_continued(tmp_path):
    pairs = tiny.write_pairs(tmp_path / "pairs")
    script = (
        "import keras, resource, signal, sys, tiny\n"
        "from keras_matting.training.run import train\n"
        "tiny.register()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "end = keras.callbacks.TensorBoard.on_epoch_end\n"
        "def limited(self, epoch, logs=None):\n"
        "    if epoch == 1:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "    end(self, epoch, logs)\n"
        "keras.callbacks.TensorBoard.on_epoch_end = limited\n"
        "try:\n"
        "    train(tiny.settings(sys.argv[1], histograms=True), sys.argv[2], verbose=0)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(pairs), str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert "MattingError Expected to write into" in done.stdout, done.stdout + done.stderr
    assert "the checkpoint of epoch 2 is kept" in done.stdout
    tiny.register()
    try:
        assert train(tiny.settings(pairs, histograms=True), tmp_path / "run", resume=True, verbose=0).epoch == 4
    finally:
        tiny.unregister()


def test_before_the_first_checkpoint_a_full_disk_has_kept_nothing(progress):
    board = progress.run_dir / "tensorboard"
    full = tf.errors.ResourceExhaustedError(None, None, f"{board}/train/events.v2; No space left on device\n\tand more")
    with (
        pytest.raises(MattingError, match="No space left on device. .* nothing was kept"),
        telling_full_disk(board, progress),
    ):
        raise full


def test_errors_of_other_files_are_not_the_disks(progress):
    other = tf.errors.NotFoundError(None, None, "photos/a.jpg; No such file or directory")
    board = progress.run_dir / "tensorboard"
    with pytest.raises(tf.errors.NotFoundError), telling_full_disk(board, progress):
        raise other


# Command line


@pytest.fixture
def tiny_words(tmp_path, monkeypatch):
    """Make "tiny" a model, and return the words of a run of one step in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    tiny.register()
    tiny.write_pairs(tmp_path / "pairs")
    words = ["--model", "tiny", "--data", "pairs", "--epochs", "1", "--batch", "2", "--steps-per-epoch", "1"]
    yield [*words, "--augment", "none", "--images-every", "0", "--out", "run"]
    tiny.unregister()


def test_validation_data_is_named_on_the_command_line(tiny_words):
    assert main(["train", *tiny_words, "--val", "pairs", "--val-fraction", "0.25"]) == 0
    assert Settings.load("run").val == ("pairs",)


@pytest.mark.parametrize("home", ["saved_models", "home"])
def test_a_run_starts_from_a_model_by_name(tiny_words, capsys, home):
    write_model_folder(models.build_model("tiny", tiny.SIZE), default_preset("tiny", "mine"), Path(home) / "mine")
    assert main(["train", *tiny_words, "--init", "mine"]) == 0
    assert f"8 of 8 variables from {Path(Settings.load('run').init) / 'model.keras'}" in capsys.readouterr().err
    Path("mine").touch()  # what is there under that very name is what is meant
    assert main(["train", *tiny_words, "--init", "mine", "--overwrite"]) == 2
    assert "received mine" in capsys.readouterr().err


def test_a_known_model_that_is_not_here_is_to_be_fetched(tiny_words, capsys):
    assert main(["train", *tiny_words, "--init", "u2netp"]) == 2
    assert "u2netp is not here yet. Fetch it: keras-matting fetch u2netp" in capsys.readouterr().err
    assert main(["adapt", "modnet", "--data", "unlabelled:pairs/image", "--epochs", "1", "--out", "run"]) == 2
    assert "modnet is not here yet. Fetch it: keras-matting fetch modnet" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_card_says_what_validated_the_run(tiny_words):
    assert main(["train", *tiny_words]) == 0
    settings = Settings.load("run")
    for val, fraction, told in (
        ("", 0.0, "none; these are the weights of the last epoch"),
        ("", 0.1, "a part of 0.1, split off the data"),
        (("pairs:other", "b=list:b.csv"), 0.0, "pairs:other, b=list:b.csv"),
        ("pairs:other", 0.1, "a part of 0.1 of pairs:other"),
    ):
        replace(settings, val=val, val_fraction=fraction).save("run")
        strip("run", "model", force=True)
        assert f"- **Validation**: {told}.\n" in Path("model/MODEL_CARD.md").read_text()
