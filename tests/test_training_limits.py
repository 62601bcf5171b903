"""What stops a run from outside its code: a disk that fills up under TensorBoard's logs, options that do not fit."""

import subprocess
import sys

import pytest
import tensorflow as tf

from keras_matting.errors import MattingError
from keras_matting.training.callbacks import telling_full_disk
from keras_matting.training.progress import Progress


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
