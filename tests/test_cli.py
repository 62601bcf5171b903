import json
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_matting.cli import main
from keras_matting.model_folder import Preset


@pytest.fixture
def run(capfd, tiny_model_dir):
    """Run the command line in this process; return (exit status, standard output, standard error)."""

    def run(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.fixture
def model(tiny_model_dir):
    return ("--model", tiny_model_dir, "--engine", "onnx-cpu", "--quiet")


def read(path, flag=-1):
    import cv2

    return cv2.imread(str(path), flag)


def test_a_folder_is_matted_and_reported(run, model, tmp_path, write_photo):
    write_photo(tmp_path / "in" / "a.jpg")
    write_photo(tmp_path / "in" / "b" / "c.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no photo")
    report = tmp_path / "report.jsonl"
    status, _, err = run("predict", tmp_path / "in", tmp_path / "out", *model, "--report", report)
    assert status == 1
    assert "failed: " in err
    assert "2 done, 1 failed" in err
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done", "done", "failed"]
    assert read(tmp_path / "out" / "b" / "c.png").shape == (90, 120, 4)
    status, _, _ = run("predict", tmp_path / "in", tmp_path / "out", *model, "--resume", "--report", report)
    assert status == 1
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == [
        "skipped",
        "skipped",
        "failed",
    ]


@pytest.mark.parametrize(
    ("options", "name", "shape", "dtype"),
    [
        ([], "x.png", (90, 120, 4), np.uint8),
        ([], "x.webp", (90, 120, 4), np.uint8),
        (["--output", "mask"], "x.jpg", (90, 120), np.uint8),
        (["--output", "matte16"], "x.png", (90, 120), np.uint16),
        (["--output", "on-color", "255,0,0"], "x.jpg", (90, 120, 3), np.uint8),
        (["--output=on-color=255,0,0"], "x.png", (90, 120, 3), np.uint8),
    ],
)
def test_outputs_by_option_and_extension(run, model, tmp_path, write_photo, options, name, shape, dtype):
    photo = write_photo(tmp_path / "a.png")
    status, _, err = run("predict", photo, *options, tmp_path / name, *model)
    assert status == 0, err
    image = read(tmp_path / name)
    assert (image.shape, image.dtype) == (shape, dtype)


def test_a_photo_is_put_on_another_photo(run, model, tmp_path, write_photo):
    import cv2

    photo, mask, black = write_photo(tmp_path / "a.png"), tmp_path / "mask.png", tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((9, 12, 3), np.uint8))
    assert run("predict", photo, mask, "--output", "mask", *model)[0] == 0
    status, _, err = run("predict", photo, tmp_path / "x.png", "--output", "on-image", black, *model)
    assert status == 0, err
    expected = read(photo) * (read(mask)[..., None] / 255)
    np.testing.assert_allclose(read(tmp_path / "x.png"), expected, atol=2)
    assert read(mask).std() > 1  # the matte is not flat, so the comparison tells


def test_names_that_look_like_options_follow_two_dashes(run, model, tmp_path, monkeypatch, write_photo):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "-a.png")
    assert run("predict", *model, "--", "-a.png", "-x.png")[0] == 0
    assert read(tmp_path / "-x.png").shape == (90, 120, 4)


def test_resume_makes_outputs_of_another_kind_anew(run, model, tmp_path, write_photo):
    write_photo(tmp_path / "in" / "a.png")
    folders = (tmp_path / "in", tmp_path / "out")
    assert run("predict", *folders, *model)[0] == 0
    assert "1 done" in run("predict", *folders, "--resume", "--output", "mask", *model)[2]
    assert read(tmp_path / "out" / "a.png").shape == (90, 120)
    assert "1 skipped" in run("predict", *folders, "--resume", "--output", "mask", *model)[2]
    os.utime(tmp_path / "in" / "a.png", (time.time() + 60,) * 2)
    assert "1 done" in run("predict", *folders, "--resume", "--output", "mask", *model)[2]


def test_a_run_can_be_repeated_with_its_output_inside_the_input(run, model, tmp_path, monkeypatch, write_photo):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "a.png")
    for _ in range(2):
        assert "1 done" in run("predict", ".", *model)[2]


def test_closed_and_full_streams_are_no_traceback(tiny_model_dir, tmp_path, write_photo):
    photo = write_photo(tmp_path / "a.png")
    command = f"{sys.executable} -m keras_matting.cli predict - --model {tiny_model_dir} --engine onnx-cpu"
    for redirection in (f"< {photo} > /dev/full", f"< {photo} >&-", "<&-"):
        done = subprocess.run(f"exec {command} {redirection}", shell=True, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2, redirection
        assert "Traceback" not in done.stderr, redirection


def test_serving_a_wrong_model_or_engine_is_one_sentence(run, tiny_model_dir):
    for words in (["--model", "u3net"], ["--model", tiny_model_dir, "--engine", "quantum"]):
        status, _, err = run("serve", *words)
        assert status == 2
        assert "received" in err


def test_standard_input_to_standard_output(tiny_model_dir, tmp_path, write_photo):
    data = write_photo(tmp_path / "a.png").read_bytes()
    command = [sys.executable, "-m", "keras_matting.cli", "predict", "-", "--model", tiny_model_dir]
    done = subprocess.run([*command, "--engine", "onnx-cpu"], input=data, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (tmp_path / "x.png").write_bytes(done.stdout)
    assert read(tmp_path / "x.png").shape == (90, 120, 4)
    done = subprocess.run(
        [*command, "--engine", "onnx-cpu"], input=b"no photo", capture_output=True, text=False, timeout=300
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jpg", "out"], "does not exist"),
        (["empty", "out"], "found none"),
        (["a.png", "x.jpg"], "JPEG has no transparency"),
        (["a.png", "x.webp", "--output", "matte16"], "16-bit matte needs PNG"),
        (["a.png", "x.png", "--output", "on-color", "1,2"], "a colour as R,G,B"),
        (["a.png", "x.png", "--output", "on-color", "1,2,300"], "a colour as R,G,B"),
        (["a.png", "x.png", "--output", "on-image", "nowhere"], "Expected a photo at nowhere"),
        (["a.png", "x.png", "--output", "psd"], "received 'psd'"),
        (["a.png", "x.png", "--engine", "quantum"], "received 'quantum'"),
        (["a.png", "x.png", "--model", "u3net"], "received 'u3net'"),
        (["a.png", "x.png", "--report", "a.png/r.jsonl"], "Expected to write the report"),
        ([".", "."], "is the folder of photos itself"),
        (["", "out"], "an empty name"),
        (["a.png", "out.gif"], "Expected a file of .png"),
        (["a.png", "x.png", "--report", "a.png"], "would overwrite a photo"),
        (["a.png", "a.png"], "would overwrite a photo"),
        (["a" * 300, "out"], "File name too long"),
        (["a.png", "x.png", "--max-megapixels", "nan"], "a positive number"),
        (["-", "x.png", "--resume"], "standard input, a pipe and standard output hold one photo"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_sentence(run, model, tmp_path, monkeypatch, write_photo, words, message):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    words = words if "--model" in words or "--engine" in words else [*words, *model]
    if "--engine" in words and "--model" not in words:
        words = [*words, *model[:2]]
    status, out, err = run("predict", *words)
    assert status == 2
    assert message in err
    assert out == ""
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_an_unwritable_output_folder_is_told_before_the_work(run, model, tmp_path, write_photo):
    photo = write_photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    status, _, err = run("predict", photo, tmp_path / "file" / "x.png", *model)
    assert status == 2
    assert "Expected to write into" in err


def test_interrupting_keeps_whole_files_only(tiny_model_dir, tmp_path, write_photo):
    photo, count = write_photo(tmp_path / "a.png"), 2000
    (tmp_path / "in").mkdir()
    for index in range(count):  # of long names, which fill the report's pipe (a mebibyte at most) before all are done
        (tmp_path / "in" / f"{index:0200}.png").symlink_to(photo)
    os.mkfifo(tmp_path / "report")
    report = os.open(tmp_path / "report", os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-m", "keras_matting.cli", "predict", tmp_path / "in", tmp_path / "out"]
    options = ["--model", tiny_model_dir, "--engine", "onnx-cpu", "--report", tmp_path / "report"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        assert select.select([report], [], [], 300)[0]
        os.read(report, 1)  # one is done, and the others wait for the rest of the report to be read
        process.send_signal(signal.SIGTERM)  # SIGINT is ignored where the tests run in the background
        while select.select([report], [], [], 300)[0] and os.read(report, 1 << 16):
            pass
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
        os.close(report)
    assert process.returncode == 130
    assert "Traceback" not in err
    written = list((tmp_path / "out").iterdir())
    assert 0 < len(written) < count
    assert all(read(path) is not None for path in written)


def test_import_writes_a_model_folder_and_does_not_overwrite_it(run, tmp_path):
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    import goldens

    state = goldens.formula_state_dict("u2netp")
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, tmp_path / "mine.pth")
    out = tmp_path / "models" / "mine"
    assert run("import", tmp_path / "mine.pth", "--model", "u2netp", "--out", out)[0] == 0
    preset = Preset.load(out)
    assert (preset.name, preset.architecture, preset.source) == ("mine", "u2netp", "mine.pth")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    status, _, err = run("import", tmp_path / "mine.pth", "--model", "u2netp", "--out", out)
    assert (status, "exists" in err) == (2, True)
    status, _, err = run("import", tmp_path / "mine.pth", "--model", "u2net", "--out", out, "--force")
    assert (status, "not one of u2net" in err) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert list((tmp_path / "models").iterdir()) == [out]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "u3net"], "received 'u3net'"),
        (["fetch", "u2netp", "--file", "nowhere.onnx", "--out", "x"], "the file nowhere.onnx: "),
        (["fetch", "u2netp", "--file", "a.png", "--out", "x"], "SHA-256 is "),
        (["import", "nowhere.pth", "--model", "u2netp", "--out", "x"], "does not exist"),
        (["import", "a.png", "--model", "resnet", "--out", "x"], "received 'resnet'"),
        (["export", "nowhere"], "nowhere has no preset.json"),
        (["optimize", "nowhere", "--engines", ","], "expected names of engines"),
        (["optimize", "nowhere", "--max-batch", "0"], "a whole number above 0; received '0'"),
        (["benchmark", "nowhere", "--plot", "plot.txt"], "Expected a plot as .png"),
        (["benchmark", "nowhere", "--json", "a.png/report.json"], "Expected to write into a.png"),
        (["benchmark", "nowhere", "--rounds", "0"], "a whole number above 0; received '0'"),
        ([], "usage"),
    ],
)
def test_other_verbs_explain_a_wrong_request(run, tmp_path, monkeypatch, write_photo, words, message):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "a.png")
    status, _, err = run(*words)
    assert status == 2
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_engines_lists_every_engine_with_its_reason(run):
    status, out, _ = run("engines", "--json")
    assert status == 0
    assert json.loads(out)["onnx-cpu"] is None
