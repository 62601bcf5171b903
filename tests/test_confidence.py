"""How sure a matte is of itself: what it counts, and that who makes or gets many cut-outs is told which to look at."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from server import start_server

import keras_matting
from keras_matting import metrics
from keras_matting.cli import main
from keras_matting.photos.confidence import LOOK_BELOW, confidence
from keras_matting.photos.files import encode

ENGINE = "onnx-cpu"


@pytest.fixture(scope="module")
def service(red_model_dir):
    with start_server(red_model_dir) as server:
        yield server.url


@pytest.fixture
def photos(photo, tmp_path):
    """A folder with a red disc, one of which the model is not sure, and none."""
    disc, folder = photo[..., :1] > 100, tmp_path / "in"
    folder.mkdir()
    for name, red in {"sure": 200, "unsure": 132, "none": 20}.items():
        rgb = np.where(disc, (red, 40, 30), (20, 40, 30)).astype(np.uint8)
        (folder / f"{name}.png").write_bytes(encode(rgb, ".png"))
    return folder


@pytest.fixture
def run(capfd, red_model_dir):
    """Run `predict` on a folder; return (standard error, its report by the photos' names)."""

    def run(folder, out, *words):
        report = out.with_suffix(".jsonl")
        words = *words, "--report", report, "--model", red_model_dir, "--engine", ENGINE, "--quiet"
        assert main([*map(str, ("predict", folder, out, *words))]) == 0
        lines = map(json.loads, report.read_text().splitlines())
        return capfd.readouterr().err, {Path(line["input"]).stem: line for line in lines}

    return run


def test_it_is_the_overlap_that_comes_about_when_the_probabilities_are_right():
    rng = np.random.default_rng(1)
    disc = cv2.circle(np.zeros((60, 80), np.float32), (40, 30), 20, 1, -1)
    matte = np.clip(cv2.GaussianBlur(disc, (0, 0), 4) - rng.uniform(0, 0.2, disc.shape), 0, 1).astype(np.float32)
    taken = (matte > 0.5).astype(np.float32)
    truths = (rng.random((300, *matte.shape)) < matte).astype(np.float32)
    mean = np.mean([metrics.iou(taken, truth) for truth in truths])
    assert 0.6 < mean < 0.9
    assert confidence(matte) == pytest.approx(mean, abs=0.01)


def test_a_sharp_matte_is_sure_and_one_that_takes_nothing_is_not():
    disc = np.zeros((90, 120), np.float32)
    cv2.circle(disc, (60, 45), 30, 1, -1)
    assert confidence(disc) == 1
    assert confidence(np.ones((5, 7), np.float32)) == 1
    for haze in (0, 0.3, 0.5):
        assert confidence(np.full((90, 120), haze, np.float32)) == 0
    assert confidence(0.7 * disc) == pytest.approx(0.7)


def test_outputs_that_are_mattes_count_like_the_matte():
    matte = np.clip(cv2.GaussianBlur(np.eye(90, 120, dtype=np.float32), (0, 0), 9) * 30, 0, 1)
    assert 0.5 < confidence(matte) < 0.95
    for kind, most in ((np.uint8, 255), (np.uint16, 65535)):
        mask = np.rint(matte * most).astype(kind)
        assert keras_matting.confidence(mask) == pytest.approx(confidence(matte), abs=1 / 255)


def test_a_matte_that_was_enlarged_is_as_sure_as_it_was():
    matte = cv2.GaussianBlur(np.kron([[0, 1], [0, 1]], np.ones((160, 160))).astype(np.float32), (0, 0), 5)
    enlarged = cv2.resize(matte, (2400, 2400), interpolation=cv2.INTER_LINEAR)
    assert confidence(enlarged) == pytest.approx(confidence(matte), abs=0.002)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_a_sliver_has_a_confidence(shape):
    assert confidence(np.ones(shape, np.float32)) == pytest.approx(1)


def test_a_folder_s_run_ends_with_what_to_look_at_and_its_report_tells_of_all(run, photos, tmp_path):
    err, report = run(photos, tmp_path / "out")
    assert report["none"]["confidence"] == 0
    assert 0.6 < report["unsure"]["confidence"] < 0.8
    assert report["sure"]["confidence"] > LOOK_BELOW
    unsure = report["unsure"]["confidence"]
    last = err.splitlines()[-1]
    assert (
        last == f"look at {photos / 'none.png'} (nothing was taken), {photos / 'unsure.png'} (confidence {unsure:.2f})"
    )


def test_where_all_are_sure_there_is_nothing_to_look_at(run, photos, tmp_path):
    err, report = run(photos / "sure.png", tmp_path / "out.png")
    assert "look at" not in err and report["sure"]["confidence"] > LOOK_BELOW


def test_of_many_the_least_sure_are_named_and_the_others_counted(run, photos, tmp_path):
    for index in range(6):
        (photos / f"more{index}.png").write_bytes((photos / "unsure.png").read_bytes())
    err, _ = run(photos, tmp_path / "out")
    last = err.splitlines()[-1]
    assert last.startswith(f"look at {photos / 'none.png'} (nothing was taken), ")
    assert last.count("(confidence 0.") == 4
    assert last.endswith(", and 3 more: --report FILE tells each one's confidence")


def test_hardening_a_matte_does_not_make_it_sure(run, photos, tmp_path):
    _, soft = run(photos, tmp_path / "soft")
    _, hard = run(photos, tmp_path / "hard", "--harden")
    assert {name: line["confidence"] for name, line in hard.items()} == {
        name: line["confidence"] for name, line in soft.items()
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [("none", b"look at it: nothing was taken"), ("unsure", b"look at it: confidence 0."), ("sure", b"")],
)
def test_a_stream_tells_it_on_standard_error(red_model_dir, photos, name, words):
    command = [sys.executable, "-m", "keras_matting.cli", "predict", "-", "--model", red_model_dir, "--engine", ENGINE]
    done = subprocess.run(
        command, input=(photos / f"{name}.png").read_bytes(), capture_output=True, timeout=300, check=True
    )
    assert done.stdout.startswith(b"\x89PNG")
    assert words in done.stderr and (b"look at" in done.stderr) == bool(words)


def test_every_answer_of_the_service_tells_it_and_so_do_its_metrics(service, run, photos, tmp_path):
    _, report = run(photos, tmp_path / "out")
    told = {name: line["confidence"] for name, line in report.items()}
    contents = {name: (photos / f"{name}.png").read_bytes() for name in told}
    with httpx.Client(base_url=service, timeout=60) as client:
        for name, content in contents.items():
            image = client.post("/v1/matte", content=content)
            document = client.post("/v1/matte", content=content, headers={"Accept": "application/json"})
            assert float(image.headers["X-Matte-Confidence"]) == document.json()["confidence"] == told[name]
        items = [{"id": name, "image": base64.b64encode(content).decode()} for name, content in contents.items()]
        batch = client.post("/v1/batch", json={"items": items}).json()["items"]
        assert {item["id"]: item["confidence"] for item in batch} == told
        counted = client.get("/metrics").text
        header = client.get("/openapi.json").json()["paths"]["/v1/matte"]["post"]["responses"]["200"]["headers"]
    assert re.search(r'keras_matting_confidence_bucket\{le="0.0",model="red"\} 3.0', counted)
    assert re.search(r'keras_matting_confidence_count\{model="red"\} 9.0', counted)
    assert "X-Matte-Confidence" in header


def test_the_page_says_which_cut_outs_to_look_at(open_page, service, photos):
    page = open_page(service)
    page.choose(*(photos / f"{name}.png" for name in ("sure", "unsure", "none")))
    assert page.finish(3) == ["done"] * 3
    states = [state.text for state in page.all("#photos li .state")]
    assert [state.partition(" · ")[2] for state in states] == ["", "have a look: not sure of it", "nothing was taken"]
    assert len(page.all("#photos li.unsure")) == 2


def test_the_page_looks_at_what_the_command_line_looks_at():
    script = Path(__file__).parents[1] / "api" / "static" / "list.js"
    assert re.search(r"LOOK_BELOW = ([\d.]+);", script.read_text())[1] == str(LOOK_BELOW)
