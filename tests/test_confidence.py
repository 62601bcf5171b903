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
from PIL import Image
from server import start_server

import keras_matting
from keras_matting import metrics
from keras_matting.cli import main
from keras_matting.matting import OutputOptions
from keras_matting.photos.confidence import LOOK_BELOW, confidence
from keras_matting.photos.files import Photo, encode
from keras_matting.photos.output import finish

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


def test_what_is_thin_and_sharp_is_sure_however_large_the_photo():
    strip = np.zeros((3000, 4000), np.float32)
    strip[:, 100:106] = 1
    assert confidence(strip) == 1
    haze = np.maximum(strip, 0.01)
    assert confidence(haze) == pytest.approx(6 / (6 + 0.01 * 3994), abs=0.001)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (7, 9, 1)])
def test_a_sliver_has_a_confidence(shape):
    assert confidence(np.ones(shape, np.float32)) == 1


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.float16, np.float64, ">f4", "PIL"])
def test_a_matte_of_every_kind_counts_alike(kind):
    disc = cv2.circle(np.zeros((90, 120), np.uint8), (60, 45), 30, 255, -1)[::-1, 3:]
    if kind == "PIL":
        matte = Image.fromarray(disc)
    else:
        most = np.iinfo(kind).max if kind in (np.uint8, np.uint16) else 1
        matte = (disc / 255 * most).astype(kind)
    assert keras_matting.confidence(matte) == 1


@pytest.mark.parametrize(
    ("matte", "received"),
    [
        (np.zeros((9, 9, 4), np.uint8), r"\(9, 9, 4\)\. Of a cut-out, pass the alpha"),
        (np.zeros((0, 9), np.float32), r"\(0, 9\)"),
        (np.full((9, 9), 200, np.int64), "int64"),
        (np.full((9, 9), 200, np.float32), "values from 200 to 200"),
        (np.full((9, 9), np.nan), "values from nan"),
        (np.eye(9, dtype=np.uint8), r"uint8 of 0 and 1\. Make it bool"),
        ("mask.png", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_matte_is_refused(matte, received):
    with pytest.raises(keras_matting.UsageError, match=rf"Expected a matte \(H, W\).*; received {received}"):
        keras_matting.confidence(matte)


def test_a_photo_s_own_transparency_is_no_doubt(photo):
    matte = (photo[..., 0] > 100).astype(np.float32)
    half = np.full(matte.shape, 100, np.uint8)
    assert finish(Photo(photo, half), matte, OutputOptions()).confidence == 1
    half[:, :60] = 0
    assert finish(Photo(photo, half), matte, OutputOptions()).confidence == 1
    assert finish(Photo(photo, np.zeros_like(half)), matte, OutputOptions()).confidence == 0


def test_a_folder_s_run_ends_with_what_to_look_at_and_its_report_tells_of_all(run, photos, tmp_path):
    err, report = run(photos, tmp_path / "out")
    assert report["none"]["confidence"] == 0
    assert 0.6 < report["unsure"]["confidence"] < 0.8
    assert report["sure"]["confidence"] > LOOK_BELOW
    assert err.splitlines()[-3:] == [
        "look at 2 of 3, the least sure first:",
        f"  {tmp_path / 'out' / 'none.png'}: nothing was taken",
        f"  {tmp_path / 'out' / 'unsure.png'}: confidence {report['unsure']['confidence']:.3f}",
    ]


def test_a_resumed_run_tells_of_what_was_there_too(run, photos, tmp_path):
    first, report = run(photos, tmp_path / "out")
    second, again = run(photos, tmp_path / "out", "--resume")
    assert {line["status"] for line in again.values()} == {"skipped"}
    assert second.splitlines()[-3:] == first.splitlines()[-3:]
    assert {name: line["confidence"] for name, line in again.items()} == {
        name: line["confidence"] for name, line in report.items()
    }


def test_an_output_that_could_not_be_written_is_not_to_be_looked_at(red_model_dir, photos, tmp_path, capfd):
    (tmp_path / "out" / "none.png").mkdir(parents=True)
    words = [photos, tmp_path / "out", "--model", red_model_dir, "--engine", ENGINE, "--quiet"]
    assert main(["predict", *map(str, words)]) == 1
    told = capfd.readouterr().err.splitlines()[-2:]
    assert told[0] == "look at 1 of 2, the least sure first:" and "unsure.png" in told[1]


def test_where_all_are_sure_there_is_nothing_to_look_at(run, photos, tmp_path):
    err, report = run(photos / "sure.png", tmp_path / "out.png")
    assert "look at" not in err and report["sure"]["confidence"] > LOOK_BELOW


@pytest.mark.parametrize("has_report", [True, False])
def test_of_many_the_least_sure_are_named_and_the_others_counted(red_model_dir, photos, tmp_path, capfd, has_report):
    for index in range(6):
        (photos / f"more{index}.png").write_bytes((photos / "unsure.png").read_bytes())
    words = [photos, tmp_path / "out", "--model", red_model_dir, "--engine", ENGINE, "--quiet"]
    report = tmp_path / "r.jsonl"
    assert main(["predict", *map(str, words), *(["--report", str(report)] if has_report else [])]) == 0
    first, *named, last = capfd.readouterr().err.splitlines()[-7:]
    assert first == "look at 8 of 9, the least sure first:"
    assert named[0].endswith("none.png: nothing was taken")
    assert all("confidence 0." in line for line in named[1:]) and len(named) == 5
    assert last == f"  and 3 more: {f'see {report}' if has_report else '--resume --report FILE tells of all'}"


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
    assert [state.partition(" · ")[2] for state in states] == ["", "unsure: have a look", "nothing was taken"]
    assert len(page.all("#photos li.unsure")) == 2
    assert page.find("#count").text == "3 cut out, 2 to look at"


def test_the_page_looks_at_what_the_command_line_looks_at():
    script = Path(__file__).parents[1] / "api" / "static" / "list.js"
    assert re.search(r"LOOK_BELOW = ([\d.]+);", script.read_text())[1] == str(LOOK_BELOW)
