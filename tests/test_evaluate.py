import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from test_official import official_model_dir

from keras_matting import metrics
from keras_matting.cli import main
from keras_matting.data.sources import Sample, Source, read_source
from keras_matting.engines import Choice, open_engine
from keras_matting.errors import EngineError, UsageError
from keras_matting.evaluate import evaluate, markdown, write_sheet
from keras_matting.matting import Session
from keras_matting.photos import imaging
from keras_matting.photos.confidence import confidence
from keras_matting.photos.files import Photo, encode

ENGINE = "onnx-cpu"


def picture(seed, size=(50, 70)):
    """A photo of soft blobs, its lower half the negative of the upper: whatever the weights, mattes pass 0.5."""
    noise = np.random.default_rng(seed).normal(size=(size[0] // 2, size[1], 3))
    half = np.clip(128 + 900 * cv2.GaussianBlur(noise, (0, 0), 5), 0, 255).astype(np.uint8)
    return np.vstack([half, 255 - half])


def write_pair(folder, stem, rgb, alpha):
    for name, image in (("image", rgb), ("mask", alpha)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{stem}.png").write_bytes(encode(image, ".png"))
    return Sample(stem, folder / "image" / f"{stem}.png", folder / "mask" / f"{stem}.png")


@pytest.fixture
def disc():
    rows, columns = np.mgrid[:50, :70]
    return np.where((rows - 25) ** 2 + (columns - 35) ** 2 < 300, 255, 0).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path, disc):
    """Three pairs of the same truth: one of another size, one blurred."""
    folder = tmp_path / "pairs"
    return [
        write_pair(folder, "a", picture(1), disc),
        write_pair(folder, "b", picture(2, (60, 90)), cv2.resize(disc, (90, 60))),
        write_pair(folder, "c", picture(3), cv2.GaussianBlur(disc, (0, 0), 2)),
    ]


@pytest.fixture
def matte_of(one_layer_dir):
    session = Session(one_layer_dir, ENGINE)

    def matte_of(rgb):
        photo = Photo(rgb)
        return imaging.restore(session.predict(session.prepare(photo)[None])[0], photo, session.preset)

    yield matte_of
    session.close()


def read_rgb(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def read_alpha(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 255


def test_rows_are_the_metrics_of_each_image_in_order(one_layer_dir, pairs, matte_of):
    rows = evaluate(one_layer_dir, pairs, ENGINE, band_px=4).rows
    assert [row["stem"] for row in rows] == ["a", "b", "c"]
    assert [(row["height"], row["width"]) for row in rows] == [(50, 70), (60, 90), (50, 70)]
    for row, pair in zip(rows, pairs, strict=True):
        matte, alpha = matte_of(read_rgb(pair.image)), read_alpha(pair.alpha)
        band = metrics.unknown_band(alpha, 4)
        precision, recall = metrics.precision_recall(matte, alpha)
        expected = {
            "mae": metrics.mae(matte, alpha),
            "conn": metrics.connectivity_error(matte, alpha),
            "iou": metrics.iou(matte, alpha),
            "iou_nonzero": metrics.iou_nonzero(matte, alpha),
            "max_f": metrics.max_f([precision], [recall]),
            "confidence": confidence(matte),
            "band_mse": metrics.mse(matte, alpha, band),
            "band_sad": metrics.sad(matte, alpha, band),
            "band_grad": metrics.gradient_error(matte, alpha, band),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_summary_is_the_mean_over_images(one_layer_dir, pairs, matte_of):
    evaluation = evaluate(one_layer_dir, pairs, ENGINE)
    summary, rows = evaluation.summary, evaluation.rows
    assert summary["n"] == summary["band_n"] == summary["max_f_n"] == 3
    for name in ("mae", "mse", "sad", "grad", "conn", "band_mae", "band_mse", "band_sad", "band_grad", "band_conn"):
        assert summary[name] == pytest.approx(np.mean([row[name] for row in rows])), name
    assert summary["miou"] == pytest.approx(np.mean([row["iou"] for row in rows]))
    assert summary["miou_nonzero"] == pytest.approx(np.mean([row["iou_nonzero"] for row in rows]))
    curves = [metrics.precision_recall(matte_of(read_rgb(pair.image)), read_alpha(pair.alpha)) for pair in pairs]
    assert summary["max_f"] == pytest.approx(metrics.max_f(*zip(*curves, strict=True)))


def test_it_tells_how_right_the_sure_mattes_are_and_how_right_the_others(red_model_dir, tmp_path, disc):
    truth, pairs = disc > 0, []
    for stem, red, taken in (("sure", 250, truth), ("also", 250, truth), ("half", 132, truth), ("wrong", 132, ~truth)):
        rgb = np.where(taken[..., None], (red, 40, 30), (20, 40, 30)).astype(np.uint8)
        pairs.append(write_pair(tmp_path / "pairs", stem, rgb, disc))
    evaluation = evaluate(red_model_dir, pairs, ENGINE)
    ious = {row["stem"]: row["iou"] for row in evaluation.rows}
    sures = {row["stem"]: row["confidence"] for row in evaluation.rows}
    assert min(sures["sure"], sures["also"]) > 0.9 > 0.75 > max(sures["half"], sures["wrong"]) > 0.5
    assert ious["half"] > 0.8 and ious["wrong"] < 0.1
    summary = evaluation.summary
    assert (summary["unsure_n"], summary["unsure_miou"]) == (2, pytest.approx((ious["half"] + ious["wrong"]) / 2))
    assert summary["sure_miou"] == pytest.approx((ious["sure"] + ious["also"]) / 2)
    assert f"Confidence below 0.9: 2 images, miou {summary['unsure_miou']:.4f}; the others: 2" in markdown(evaluation)
    assert evaluate(red_model_dir, pairs[:1], ENGINE).summary["unsure_miou"] is None


def test_a_model_is_perfect_on_its_own_mattes(one_layer_dir, tmp_path, matte_of):
    rgb = picture(4)
    pair = write_pair(tmp_path, "own", rgb, imaging.to_uint8(matte_of(rgb)))
    summary = evaluate(one_layer_dir, [pair], ENGINE).summary
    assert summary["mae"] <= 0.5 / 255
    assert min(summary[name] for name in ("miou", "miou_nonzero", "max_f")) > 0.99


def test_an_empty_truth_has_neither_band_nor_f_measure(one_layer_dir, tmp_path, pairs, disc):
    empty = write_pair(tmp_path / "pairs", "empty", picture(5), np.zeros_like(disc))
    evaluation = evaluate(one_layer_dir, [*pairs, empty], ENGINE)
    row = evaluation.rows[-1]
    assert [row[name] for name in ("band_mae", "band_conn", "max_f")] == [None] * 3
    assert [evaluation.summary[name] for name in ("n", "band_n", "max_f_n")] == [4, 3, 3]
    known = evaluate(one_layer_dir, pairs, ENGINE).summary
    assert evaluation.summary["band_mae"] == pytest.approx(known["band_mae"])
    assert evaluation.summary["max_f"] == pytest.approx(known["max_f"])
    assert "max_f is over the 3 images" in markdown(evaluation)
    assert evaluate(one_layer_dir, [empty], ENGINE).summary["max_f"] is None


def test_doubtful_masks_are_compared_and_told(one_layer_dir, pairs, disc, tmp_path, caplog):
    white, inverted = (
        write_pair(tmp_path, name, picture(1), mask) for name, mask in (("white", disc | 255), ("inv", ~disc))
    )
    evaluation = evaluate(one_layer_dir, [*pairs, white, inverted], ENGINE)
    assert (evaluation.summary["n"], evaluation.problems) == (5, ())
    assert (
        "doubtful in samples, and used; data check names them: all-white mask (1), inverted mask (1): white, inv;"
        in caplog.text
    )


def test_pairs_that_cannot_be_used_are_named_and_left_out(one_layer_dir, pairs, disc, tmp_path):
    broken = [
        write_pair(tmp_path, "size", picture(1), disc[1:]),
        write_pair(tmp_path, "cut", picture(1), disc),
        write_pair(tmp_path, "ones", picture(1), disc // 255),
        Sample("gone", tmp_path / "gone.png", pairs[0].alpha),
        Sample("unlabelled", pairs[0].image),
    ]
    broken[1].image.write_bytes(broken[1].image.read_bytes()[:200])
    evaluation = evaluate(one_layer_dir, [broken[0], pairs[0], *broken[1:], pairs[1]], ENGINE)
    assert [row["stem"] for row in evaluation.rows] == ["a", "b"]
    details = {problem.stem: problem.detail for problem in evaluation.problems}
    assert list(details) == ["size", "cut", "ones", "gone", "unlabelled"]
    for stem, message in (
        ("size", "a mask of 70x50"),
        ("cut", "truncated"),
        ("ones", "largest value is 1"),
        ("gone", "FileNotFoundError"),
        ("unlabelled", "neither a mask nor transparency"),
    ):
        assert message in details[stem]
    expected = evaluate(one_layer_dir, pairs[:2], ENGINE)
    assert evaluation.summary == expected.summary
    assert evaluation.fingerprint["data"] == expected.fingerprint["data"]


def test_no_usable_pair_is_an_error_that_names_one(one_layer_dir, tmp_path, disc):
    broken = write_pair(tmp_path, "size", picture(1), disc[1:])
    with pytest.raises(UsageError, match=r"found none, the first: size: Expected a mask of 70x50 .*anew\.$"):
        evaluate(one_layer_dir, [broken], ENGINE)
    faint = write_pair(tmp_path, "faint", picture(1), disc // 9)
    with pytest.raises(UsageError, match=r"are these class ids\?$"):
        evaluate(one_layer_dir, [faint], ENGINE)
    with pytest.raises(UsageError, match="it is empty"):
        evaluate(one_layer_dir, [], ENGINE)


def test_unlabelled_data_is_refused(one_layer_dir, pairs):
    with pytest.raises(UsageError, match="is unlabelled"):
        evaluate(one_layer_dir, Source("photos", "unlabelled", tuple(pairs)), ENGINE)


def test_an_engine_that_gives_nan_fails_instead_of_leaving_the_image_out(one_layer_dir, pairs, monkeypatch):
    engine = open_engine(ENGINE, one_layer_dir)
    monkeypatch.setattr("keras_matting.matting.choose_engine", lambda *_: Choice(engine, "name"))
    predict = engine.predict
    monkeypatch.setattr(engine, "predict", lambda batch: predict(batch) * np.float32(np.nan))
    with pytest.raises(EngineError, match=f"a: Engine {ENGINE} gave NaN or infinity"):
        evaluate(one_layer_dir, pairs, ENGINE)


def test_a_model_that_is_no_matting_model_is_refused(one_layer_dir, pairs, monkeypatch):
    engine = open_engine(ENGINE, one_layer_dir)
    monkeypatch.setattr("keras_matting.matting.choose_engine", lambda *_: Choice(engine, "name"))
    monkeypatch.setattr(engine, "predict", lambda batch: np.zeros((1, 1000), np.float32))
    with pytest.raises(UsageError, match=r"a model that gives mattes; one_layer gives \(1000,\)"):
        evaluate(one_layer_dir, pairs, ENGINE)


def test_the_keras_model_itself_is_measured_like_its_export(one_layer_dir, pairs):
    by_keras, by_engine = (evaluate(one_layer_dir, pairs, engine) for engine in ("keras", ENGINE))
    for name, value in by_engine.summary.items():
        assert by_keras.summary[name] == (value if value is None else pytest.approx(value, rel=1e-2)), name
    assert by_keras.summary["mae"] == pytest.approx(by_engine.summary["mae"], rel=1e-5)
    assert by_keras.fingerprint["engine"]["name"] == "keras-function"


def test_cut_outs_are_seen_on_a_background_and_compared_with_their_alpha(one_layer_dir, tmp_path, disc, matte_of):
    rgb, backgrounds = picture(1), []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        path.write_bytes(encode(picture(10 + index, (40, 40)), ".png"))
        backgrounds.append(Sample(path.stem, path))
    (tmp_path / "rgba.png").write_bytes(encode(np.dstack([rgb, disc]), ".png"))
    samples = tuple(Sample(f"cut-out {n}", tmp_path / "rgba.png") for n in range(6))
    source = Source("composites", "composite", samples, tuple(backgrounds))

    def error_on(background):
        return round(metrics.mae(matte_of(imaging.composite(rgb, disc / 255, background)), disc / 255), 6)

    seen = evaluate(one_layer_dir, source, ENGINE)
    errors = {error_on(read_rgb(background.image)) for background in backgrounds}
    assert len(errors) == 3
    found = {round(row["mae"], 6) for row in seen.rows}
    assert found <= errors
    assert len(found) > 1  # not all on one
    again = evaluate(one_layer_dir, source, ENGINE)
    assert (again.rows, again.fingerprint["data"]) == (seen.rows, seen.fingerprint["data"])
    on_white = evaluate(one_layer_dir, samples, ENGINE)
    assert on_white.summary["mae"] == pytest.approx(error_on((255, 255, 255)), abs=1e-6)
    assert on_white.fingerprint["data"]["sha256"] != seen.fingerprint["data"]["sha256"]


def test_the_fingerprint_tells_model_engine_and_data(one_layer_dir, pairs):
    fingerprint = evaluate(one_layer_dir, pairs, ENGINE, band_px=7).fingerprint
    assert len(fingerprint["model"]["weights_sha256"]) == 64
    assert fingerprint["engine"]["name"] == ENGINE
    assert (fingerprint["data"]["n"], fingerprint["data"]["band_px"]) == (3, 7)
    before = fingerprint["data"]["sha256"]
    assert before != evaluate(one_layer_dir, pairs[:2], ENGINE).fingerprint["data"]["sha256"]
    pairs[0].alpha.write_bytes(encode(np.zeros((50, 70), np.uint8), ".png"))
    assert before != evaluate(one_layer_dir, pairs, ENGINE).fingerprint["data"]["sha256"]


def test_the_sheet_shows_the_worst_images_and_where_they_err(one_layer_dir, tmp_path, matte_of):
    rgb = picture(1)
    matte_of_it = matte_of(rgb)
    truths = [imaging.to_uint8(matte_of_it * (1 - n / 10)) for n in range(6)]
    samples = [write_pair(tmp_path, f"off{n}", rgb, truth) for n, truth in enumerate(truths)]
    evaluation = evaluate(one_layer_dir, samples, ENGINE, worst=2)
    assert [group.caption.split()[0] for group in evaluation.worst] == ["off5", "off4"]
    photo, truth, matte, difference = evaluation.worst[0].pictures
    np.testing.assert_array_equal(photo, rgb)
    np.testing.assert_array_equal(truth, truths[5])
    np.testing.assert_allclose(matte, matte_of_it * 255, atol=0.51)
    assert (difference[..., 0] == 255).all()  # the matte has too much everywhere: white to red
    assert difference[..., 1:].mean() < 255
    write_sheet(evaluation, tmp_path / "sheet.png")
    page = read_rgb(tmp_path / "sheet.png")
    assert page.shape[0] > 200
    assert page.shape[1] > 4 * 200
    assert evaluate(one_layer_dir, samples[:1], ENGINE).worst == ()


@pytest.fixture
def run(capfd, one_layer_dir):
    def run(*words):
        try:
            status = main(["evaluate", *map(str, words)])
        except SystemExit as stop:
            status = stop.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def test_the_command_prints_a_table_and_writes_files(run, one_layer_dir, pairs, tmp_path):
    outputs = ("--json", tmp_path / "out" / "a.json", "--csv", tmp_path / "a.csv", "--sheet", tmp_path / "a.png")
    words = (one_layer_dir, "--data", tmp_path / "pairs", "--engine", ENGINE)
    status, out, err = run(*words, *outputs, "--worst", 1)
    assert status == 0, err
    summary = evaluate(one_layer_dir, read_source(tmp_path / "pairs"), ENGINE).summary
    lines = out.splitlines()
    assert lines[0] == f"one_layer with onnx-cpu on {tmp_path / 'pairs'}."
    assert lines[2] == "| region | n | mae | mse | sad | grad | conn | miou | miou_nonzero | max_f |"
    assert lines[4].startswith(f"| whole image | 3 | {summary['mae']:.4f} |")
    assert lines[5].startswith(f"| unknown band (10 px) | 3 | {summary['band_mae']:.4f} |")
    assert json.loads((tmp_path / "out" / "a.json").read_text())["summary"] == pytest.approx(summary)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stem"] for row in rows] == ["a", "b", "c"]
    assert np.mean([float(row["mae"]) for row in rows]) == pytest.approx(summary["mae"])
    assert read_rgb(tmp_path / "a.png") is not None
    assert "| whole image | 2 |" in run(*words, "--limit", 2)[1]


def test_the_command_names_what_it_left_out_and_exits_with_1(run, one_layer_dir, pairs, tmp_path, disc):
    write_pair(tmp_path / "pairs", "wrong", picture(1), disc[1:])
    pairs[2].alpha.unlink()
    arguments = (one_layer_dir, "--data", tmp_path / "pairs", "--engine", ENGINE, "--json", tmp_path / "a.json")
    status, out, err = run(*arguments)
    assert status == 1
    assert "left out: wrong: size mismatch" in err
    assert "left out: c: image without mask" in err
    assert "| whole image | 2 |" in out
    problems = json.loads((tmp_path / "a.json").read_text())["problems"]
    assert sorted(problem["stem"] for problem in problems) == ["c", "wrong"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "quantum"], "received 'quantum'"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--data", "unlabelled:pairs/image"], "is unlabelled"),
        (["--data", "pairs", "--data", "pairs"], "Expected one --data"),
        (["--sheet", "sheet.jpg"], "Expected a sheet as .png"),
        (["--json", "pairs/image/a.png/x.json"], "Expected to write into"),
        (["--limit", "0"], "a whole number above 0"),
        (["--worst", "x"], "a whole number above 0"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_sentence(run, one_layer_dir, pairs, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    words = words if "--data" in words else [*words, "--data", "pairs"]
    words = words if "--engine" in words else [*words, "--engine", ENGINE]
    status, out, err = run(one_layer_dir, *words)
    assert (status, out) == (2, "")
    assert message in err


def test_a_folder_that_is_no_model_is_one_sentence(run, pairs, tmp_path):
    status, _, err = run(tmp_path, "--data", tmp_path / "pairs")
    assert status == 2
    assert "has no preset.json" in err


def test_evaluating_with_a_light_engine_loads_no_framework(one_layer_dir, pairs, tmp_path):
    script = (
        "import sys\n"
        "from keras_matting.cli import main\n"
        f"words = [{str(one_layer_dir)!r}, '--data', {str(tmp_path / 'pairs')!r}, '--engine', {ENGINE!r}]\n"
        "assert main(['evaluate', *words]) == 0\n"
        "loaded = {'tensorflow', 'keras', 'torch', 'jax', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_official_u2netp_on_sod_is_as_good_as_published(shared_data):
    """Measured with the official ONNX file, Pillow's bilinear resize and the official min-max: 0.1183 and 0.8488."""
    summary = evaluate(official_model_dir("u2netp"), read_source(shared_data / "sod"), ENGINE).summary
    assert summary["n"] == 300
    assert summary["mae"] == pytest.approx(0.1183, abs=0.002)
    assert summary["max_f"] == pytest.approx(0.8488, abs=0.002)
