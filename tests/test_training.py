"""Training runs: their folder, resume after a kill, refusals, and what becomes of a full disk or a NaN."""

import shutil
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tiny

from keras_matting.cli import main
from keras_matting.errors import MattingError, UsageError
from keras_matting.files import locked_folder
from keras_matting.models.folder import load_model
from keras_matting.training.callbacks import NaNGuard
from keras_matting.training.progress import Progress
from keras_matting.training.run import train
from keras_matting.training.settings import Settings
from keras_matting.training.strip import strip

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def finished(pairs, tmp_path_factory):
    """(settings, folder, progress) of a run that nothing disturbed."""
    tiny.register()
    settings = tiny.settings(pairs, images_every=2)
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return settings, folder, train(settings, folder, verbose=0)


def test_a_run_learns_and_keeps_its_best_epoch(finished):
    _, folder, progress = finished
    start, best = progress.metrics_of(0), progress.metrics_of(progress.state["best_epoch"])
    assert best["val_miou"] == max(row["val_miou"] for row in progress.history) >= start["val_miou"]
    assert tiny.losses_of(progress)[-1] < tiny.losses_of(progress)[0]
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + len(progress.history)


def test_tensorboard_gets_losses_learning_rate_pictures_and_settings(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder, _ = finished
    tags = {}
    for part in ("train", "validation", "pictures"):
        events = EventAccumulator(str(folder / "tensorboard" / part))
        events.Reload()
        tags[part] = {tag for names in events.Tags().values() if isinstance(names, list) for tag in names}
    assert {"epoch_loss", "epoch_matte_loss", "epoch_learning_rate", "epoch_miou"} <= tags["train"]
    assert {"epoch_loss", "epoch_miou", "epoch_mae"} <= tags["validation"]
    assert any(tag.startswith("photo, truth, matte, cut-out") for tag in tags["pictures"])
    assert any("hparams" in tag for tag in tags["train"])


def test_a_run_killed_in_an_epoch_continues_as_if_it_had_not_been(finished, pairs, tmp_path):
    script = (
        "def kill(self, batch, logs=None):\n"
        "    if (self.epoch, batch) == (2, 1):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "callbacks.NaNGuard.on_train_batch_end = kill\n"
        "train(tiny.settings(sys.argv[1]), sys.argv[2], verbose=0)\n"
    )
    killed = tiny.in_process(script, pairs, tmp_path / "run")
    assert killed.returncode == -9, killed.stderr
    progress = train(tiny.settings(pairs), tmp_path / "run", resume=True, verbose=0)
    assert progress.epoch == 4
    _, _, undisturbed = finished
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(undisturbed), rtol=1e-5)
    for row, expected in zip(progress.history, undisturbed.history, strict=True):
        assert row["val_miou"] == pytest.approx(expected["val_miou"], rel=1e-5), row["epoch"]


def test_a_checkpoint_that_was_cut_off_is_never_read(finished, tmp_path):
    _, folder, progress = finished
    (folder / "checkpoint-9.npz").write_bytes(b"half")
    again = Progress(folder, "val_miou")
    again.read()
    assert again.state["checkpoint"] == progress.state["checkpoint"] == "checkpoint-4.npz"
    (folder / "checkpoint-9.npz").unlink()


@pytest.mark.long
def test_a_finished_run_trains_on_when_it_gets_more_epochs(finished, pairs, tmp_path):
    train(tiny.settings(pairs, epochs=2), tmp_path / "run", verbose=0)
    progress = train(tiny.settings(pairs, epochs=4), tmp_path / "run", resume=True, verbose=0)
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(finished[2]), rtol=1e-5)


def test_an_existing_run_is_not_overwritten(finished):
    settings, folder, _ = finished
    with pytest.raises(UsageError, match="--resume, or replace it with --overwrite"):
        train(settings, folder)


def test_a_run_is_not_removed_for_one_that_cannot_start(finished, pairs, tmp_path):
    _, folder, _ = finished
    run = shutil.copytree(folder, tmp_path / "run")
    black = tiny.write_pairs(tmp_path / "black", white=0)
    for settings in (tiny.settings(tmp_path), tiny.settings(pairs, model="u3net"), tiny.settings(black)):
        with pytest.raises(UsageError):
            train(settings, run, overwrite=True, verbose=0)
    assert (run / "best.keras").read_bytes() == (folder / "best.keras").read_bytes()
    again = train(tiny.settings(pairs, epochs=1, init=str(run / "best.keras")), run, overwrite=True, verbose=0)
    assert again.epoch == 1
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-1.npz"]


def test_two_runs_do_not_share_a_folder(pairs, tmp_path):
    (tmp_path / "run").mkdir()
    with locked_folder(tmp_path / "run"), pytest.raises(UsageError, match="in use by another process"):
        train(tiny.settings(pairs), tmp_path / "run", verbose=0)
    with locked_folder(tmp_path / "run"):  # it was let go
        pass


def test_a_folder_of_other_things_is_not_used(pairs, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        train(tiny.settings(pairs), tmp_path)


@pytest.mark.parametrize("change", [{"augment": "original"}, {"model": "u2netp"}, {"seed": 1}])
def test_resume_refuses_a_run_of_other_settings(finished, pairs, change):
    _, folder, _ = finished
    (name,) = change
    with pytest.raises(UsageError, match=f"{name} was .*, now {change[name]!r}"):
        train(tiny.settings(pairs, images_every=2, **change), folder, resume=True)


def test_nan_stops_the_run_and_names_step_and_files(pairs, tmp_path):
    with pytest.raises(
        MattingError,
        match=r"became (nan|no finite number) in epoch 1, step [23], on \d\d, \d\d; .* lower --learning-rate",
    ):
        train(tiny.settings(pairs, learning_rate=1e38), tmp_path / "run", verbose=0)


def test_nan_leaves_the_last_good_checkpoint(finished, pairs, tmp_path, monkeypatch):
    begin = NaNGuard.on_epoch_begin

    def spoilt(guard, epoch, logs=None):
        begin(guard, epoch)
        if epoch == 2:
            guard.model.optimizer.learning_rate = 1e38

    monkeypatch.setattr(NaNGuard, "on_epoch_begin", spoilt)
    with pytest.raises(
        MattingError,
        match=r"became (nan|no finite number) in epoch 3, step [23], on \d\d, \d\d; the checkpoint of epoch 2 is kept",
    ):
        train(tiny.settings(pairs), tmp_path / "run", verbose=0)
    monkeypatch.undo()
    progress = train(tiny.settings(pairs), tmp_path / "run", resume=True, verbose=0)
    np.testing.assert_allclose(tiny.losses_of(progress), tiny.losses_of(finished[2]), rtol=1e-5)


@pytest.mark.parametrize(("val_fraction", "rate"), [(0.25, 1e38), (0.0, 1e39)])
def test_weights_that_an_epochs_last_step_spoilt_are_not_kept(pairs, tmp_path, val_fraction, rate):
    settings = tiny.settings(pairs, steps_per_epoch=1, learning_rate=rate, monitor="val_mae", val_fraction=val_fraction)
    with pytest.raises(MattingError, match=r"became no finite number in epoch 1, step 1, on \d\d, \d\d; nothing"):
        train(settings, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "checkpoint-1.npz").exists()


def test_what_is_left_out_of_the_data_is_told(pairs, tmp_path, caplog):
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    (folder / "mask" / "00.png").unlink()
    cv2.imwrite(str(folder / "mask" / "01.png"), np.full((8, 8), 255, np.uint8))
    train(tiny.settings(folder, epochs=1, steps_per_epoch=1), tmp_path / "run", verbose=0)
    (line,) = [line for line in caplog.messages if line.startswith("left out")]
    assert f"left out of {folder}: image without mask (1), size mismatch (1)" in line


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(pairs, tmp_path):
    script = (
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from keras_matting.errors import MattingError\n"
        "begin = callbacks.NaNGuard.on_epoch_begin\n"
        "def limited(self, epoch, logs=None):\n"
        "    begin(self, epoch, logs)\n"
        "    if epoch == 1:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "callbacks.NaNGuard.on_epoch_begin = limited\n"
        "try:\n"
        "    train(tiny.settings(sys.argv[1]), sys.argv[2], verbose=0)\n"
        "except MattingError as error:\n"
        "    print(error)\n"
    )
    done = tiny.in_process(script, pairs, tmp_path / "run")
    assert "Expected to write a checkpoint" in done.stdout, done.stdout + done.stderr
    assert "the checkpoint of epoch 1 is whole" in done.stdout
    assert not list((tmp_path / "run").glob(".*partial*"))
    assert train(tiny.settings(pairs), tmp_path / "run", resume=True, verbose=0).epoch == 4


def test_strip_gives_a_folder_that_serves_the_best_epoch(finished, tmp_path):
    _, run_dir, progress = finished
    preset = strip(run_dir, tmp_path / "model", name="mine")
    assert (preset.name, preset.architecture, preset.input_size) == ("mine", "tiny", (tiny.SIZE, tiny.SIZE))
    image = np.random.default_rng(0).random((1, tiny.SIZE, tiny.SIZE, 3)).astype("float32")
    best = keras.saving.load_model(run_dir / "best.keras", compile=False)
    model = load_model(tmp_path / "model")
    np.testing.assert_array_equal(np.asarray(model(image)["matte"]), np.asarray(best(image)["matte"]))
    assert len(model.weights) == 8  # two convolutions and a batch norm: no optimiser, no metrics
    assert f'"epoch": {progress.state["best_epoch"]}' in (tmp_path / "model" / "training.json").read_text()
    assert "TODO" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_strip_can_take_the_last_epoch(finished, tmp_path):
    _, run_dir, _ = finished
    strip(run_dir, tmp_path / "model", last=True)
    assert '"epoch": 4' in (tmp_path / "model" / "training.json").read_text()


def test_the_last_weights_of_a_run_that_goes_on_can_be_had(finished, tmp_path, monkeypatch):
    """It replaces its checkpoint between the moment when its progress is read and the one when that is loaded."""
    _, run_dir, _ = finished
    read = Progress.read

    def read_too_early(progress):
        read(progress)
        progress.state["checkpoint"] = "checkpoint-1.npz"
        monkeypatch.undo()
        return progress

    monkeypatch.setattr(Progress, "read", read_too_early)
    assert not (run_dir / "checkpoint-1.npz").exists()
    assert strip(run_dir, tmp_path / "model", last=True).weights_sha256


def test_strip_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="Expected a training run"):
        strip(tmp_path, tmp_path / "model")


def test_mixed_precision_trains_and_strips_to_float32(pairs, tmp_path):
    train(tiny.settings(pairs, precision="mixed_bfloat16", epochs=1), tmp_path / "run", verbose=0)
    strip(tmp_path / "run", tmp_path / "model")
    saved = keras.saving.load_model(tmp_path / "model" / "model.keras", compile=False)
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs at least 1; received 0"),
        ({"data": []}, "none. Name it with --data"),
        ({"objective": "soc"}, "SOC adapts modnet,.*received tiny"),
        ({"freeze_backbone": True}, "Only modnet has a backbone"),
        ({"precision": "int4"}, "mixed_bfloat16, mixed_float16; received 'int4'"),
        ({"fraction": 0}, "fraction above 0 and up to 1; received 0"),
    ],
)
def test_settings_that_cannot_be_met_are_explained(pairs, change, message):
    with pytest.raises(UsageError, match=message):
        tiny.settings(pairs, **change)


def test_training_without_truth_is_refused(pairs, tmp_path):
    with pytest.raises(UsageError, match="Expected training photos with truth"):
        train(tiny.settings(pairs, data=[f"unlabelled:{pairs}/image"], val=str(pairs)), tmp_path / "run")


def test_the_command_line_trains_resumes_and_strips(pairs, tmp_path, capsys):
    words = ["--model", "tiny", "--data", str(pairs), "--val-fraction", "0.25", "--batch", "2", "--augment", "none"]
    run_dir, model_dir = str(tmp_path / "run"), str(tmp_path / "model")
    assert main(["train", *words, "--epochs", "1", "--images-every", "0", "--out", run_dir]) == 0
    assert main(["train", *words, "--epochs", "2", "--images-every", "0", "--out", run_dir, "--resume"]) == 0
    assert "2 of 2 epochs" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", run_dir, "--epochs", "3"]) == 0  # the rest is as it began
    assert "3 of 3 epochs" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(tmp_path / "new"), "--epochs", "3"]) == 2
    assert "Expected --model, --data; received none" in capsys.readouterr().err
    assert main(["strip", run_dir, "--out", model_dir]) == 0
    assert main(["train", *words, "--epochs", "2", "--out", run_dir]) == 2
    assert "is a run already" in capsys.readouterr().err


@pytest.mark.long
def test_adapt_trains_against_the_network_of_the_epochs_start(pairs, tmp_path, monkeypatch):
    settings = Settings("modnet", (f"unlabelled:{pairs}/image",), 2, batch_size=2, augment="none", objective="soc")
    settings = replace(settings, input_size=(64, 64), steps_per_epoch=2, learning_rate=1e-3, images_every=0)
    kernel = "f_branch.conv_f2x.layers.0"
    seen, trainers_seen = [], []

    def look(guard, epoch, logs=None):
        models = (guard.model.teacher, guard.model.network)
        seen.append([model.get_layer(kernel).get_weights()[0] for model in models])
        trainers_seen.append(guard.model)

    monkeypatch.setattr(NaNGuard, "on_train_batch_begin", lambda self, batch, logs=None: batch or look(self, batch))
    progress = train(settings, tmp_path / "run", verbose=0)
    assert np.isfinite(tiny.losses_of(progress)).all() and "val_miou" not in progress.history[-1]
    (teacher, network), (next_teacher, next_network) = seen
    np.testing.assert_array_equal(teacher, network)
    np.testing.assert_array_equal(next_teacher, next_network)
    assert not np.array_equal(teacher, next_teacher)
    statistics = "lr_branch.conv_lr16x.layers.1"
    moving_mean = trainers_seen[-1].network.get_layer(statistics).bnorm.moving_mean
    assert not np.asarray(moving_mean).any()  # those of fresh weights
