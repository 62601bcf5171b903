"""Shop pictures from the command line, from Python and from the service, in the same words."""

import base64
import io
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms
from server import start_server

import keras_matting
from keras_matting.cli import main
from keras_matting.photos.files import encode

ENGINE = "onnx-cpu"
SHOP = {"crop": True, "canvas": "100x150", "margin": "5px", "position": "bottom", "shadow": "soft"}


@pytest.fixture(scope="module")
def client(red_model_dir):
    with start_server(red_model_dir) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def run(capfd, red_model_dir):
    """Run `predict`; return (exit status, standard error)."""

    def run(*words):
        try:
            status = main([*map(str, ("predict", *words, "--model", red_model_dir, "--engine", ENGINE, "--quiet"))])
        except SystemExit as stop:
            status = stop.code
        return status, capfd.readouterr().err

    return run


@pytest.fixture
def dark():
    """A photo without a subject."""
    return np.full((90, 120, 3), (20, 40, 30), np.uint8)


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def words(options):
    """Return options as the command line has them."""
    return [
        word for name, value in options.items() for word in ([f"--{name}"] if value is True else [f"--{name}", value])
    ]


def test_all_ways_make_the_same_picture(client, run, photo, red_model_dir, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(photo, ".png"))
    status, err = run(tmp_path / "a.png", tmp_path / "x.png", *words(SHOP))
    assert status == 0, err
    picture = opened((tmp_path / "x.png").read_bytes())
    assert picture.shape == (150, 100, 4)
    np.testing.assert_array_equal(keras_matting.matte(photo, red_model_dir, ENGINE, **SHOP), picture)
    answer = client.post("/v1/matte", params=SHOP, content=encode(photo, ".png"))
    np.testing.assert_array_equal(opened(answer.content), picture)


def test_reports_hold_the_subject_s_box_in_the_upright_photo(client, run, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: what is 120 wide becomes 90
    photo[:, :20] = (200, 100, 50)
    photo[:, 20:] = (20, 40, 30)
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    report = tmp_path / "report.jsonl"
    status, err = run(tmp_path / "a.png", tmp_path / "x.png", "--crop", "--report", report)
    assert status == 0, err
    line = json.loads(report.read_text())
    assert (line["width"], line["height"]) == (90, 120)
    box = line["box"]
    assert (box["left"], box["top"], box["width"]) == (0, 0, 90)
    assert box["height"] == pytest.approx(20, abs=2)
    assert opened((tmp_path / "x.png").read_bytes()).shape == (box["height"], 90, 4)
    answer = client.post("/v1/matte", params={"crop": True}, content=(tmp_path / "a.png").read_bytes())
    assert answer.headers["X-Subject-Box"] == ",".join(str(value) for value in box.values())


def test_without_framing_no_box_is_told(client, run, jpeg, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    assert run(tmp_path / "a.jpg", tmp_path / "x.png", "--report", tmp_path / "r.jsonl")[0] == 0
    assert "box" not in json.loads((tmp_path / "r.jsonl").read_text())
    answer = client.post("/v1/matte", content=jpeg, headers={"Accept": "application/json"})
    assert "X-Subject-Box" not in answer.headers and "box" not in answer.json()


def test_json_and_batches_tell_the_box_and_the_output_s_size(client, photo, jpeg):
    params = {"canvas": "50x60", "output": "mask"}
    one = client.post("/v1/matte", params=params, content=jpeg, headers={"Accept": "application/json"}).json()
    assert (one["width"], one["height"]) == (50, 60)
    assert one["box"]["width"] == pytest.approx(60, abs=3)
    item = {"id": "a", "image": base64.b64encode(jpeg).decode()}
    batch = client.post("/v1/batch", params=params, json={"items": [item]}).json()["items"][0]
    headers = {"Content-Type": "application/x-ndjson"}
    line = client.post("/v1/batch", params=params, content=json.dumps(item), headers=headers).json()
    for result in (batch, line):
        assert result["box"] == one["box"]
        assert opened(base64.b64decode(result["image"])).shape == (60, 50)


def test_a_photo_without_a_subject_is_told_and_the_others_go_on(client, run, photo, dark, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encode(dark, ".png"))
    (tmp_path / "in" / "b.png").write_bytes(encode(photo, ".png"))
    status, err = run(tmp_path / "in", tmp_path / "out", "--crop")
    assert status == 1
    assert "an empty matte" in err and "1 done, 1 failed" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    problem = client.post("/v1/matte", params={"crop": True}, content=encode(dark, ".png"))
    assert (problem.status_code, problem.json()["code"]) == (422, "no_subject")
    assert "an empty matte" in problem.json()["detail"]


def test_a_stream_without_a_subject_is_told(red_model_dir, dark):
    command = [sys.executable, "-m", "keras_matting.cli", "predict", "-", "--crop", "--model", red_model_dir]
    command += ["--engine", ENGINE]
    done = subprocess.run(command, input=encode(dark, ".png"), capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"failed: standard input: Expected a subject" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--margin", "3%"], "a crop or a canvas"),
        (["--crop", "--margin", "3"], "a margin of one, two or four"),
        (["--canvas", "20000x20000"], "at most 100 megapixels"),
        (["--canvas", "10x10", "--margin", "5px"], "margins that leave room"),
        (["--canvas", "10x10", "--scale", "200%"], "a scale from 1% to 100%"),
        (["--canvas", "10x10", "--position", "middle"], "a position as center"),
        (["--shadow", "hard"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(run, write_photo, tmp_path, options, message):
    photo = write_photo(tmp_path / "a.png")
    status, err = run(photo, tmp_path / "x.png", *options)
    assert status == 2
    assert message in err and "Traceback" not in err
    assert not (tmp_path / "x.png").exists()


def test_resume_notices_another_framing(run, write_photo, tmp_path):
    write_photo(tmp_path / "in" / "a.png")
    folders = (tmp_path / "in", tmp_path / "out", "--resume")
    assert "1 done" in run(*folders)[1]
    assert "1 skipped" in run(*folders)[1]
    assert "1 made anew: 1 other framing" in run(*folders, "--crop")[1]
    assert "1 skipped" in run(*folders, "--crop", "--margin", "0")[1]
    assert "1 made anew: 1 other framing" in run(*folders, "--crop", "--margin", "1px")[1]
    assert "1 made anew: 1 other framing" in run(*folders, "--crop", "--margin", "1px", "--shadow", "soft")[1]
    assert "1 made anew: 1 other framing" in run(*folders)[1]


def test_a_photo_s_profile_and_a_grey_photo_are_kept_right(run, photo, tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=srgb)
    assert run(tmp_path / "a.png", tmp_path / "x.png", "--canvas", "40x50")[0] == 0
    with Image.open(tmp_path / "x.png") as image:
        assert image.info["icc_profile"] == srgb
    Image.fromarray(photo[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey.png")
    assert run(tmp_path / "grey.png", tmp_path / "y.png", "--canvas", "40x50", "--scale", "50%")[0] == 0
    assert opened((tmp_path / "y.png").read_bytes())[25, 20].tolist() == [200, 200, 200, 255]


def test_a_picture_behind_and_a_path_in_python(photo, red_model_dir, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(photo, ".png"))
    sky = Image.new("RGB", (10, 10), (1, 2, 3))
    options = {"output": "on-image", "background": sky, "canvas": (60, 50), "scale": "80%"}
    path = keras_matting.matte(tmp_path / "a.png", red_model_dir, ENGINE, **options)
    image = opened(path.read_bytes())
    assert image.shape == (50, 60, 3)
    assert image[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"crop": "true", "crop_margin": "10% 3px"}, {"crop": "true", "margin": "10% 3px"}),
        ({"bg_color": "f80"}, {"output": "on-color", "color": "#ff8800"}),
        ({"bg_color": "#81d4fa", "output": "on-color"}, {"output": "on-color", "color": "#81d4fa"}),
        ({"add_shadow": "true"}, {"shadow": "soft"}),
        ({"shadow_type": "auto"}, {"shadow": "soft"}),
        ({"add_shadow": "true", "shadow_type": "auto"}, {"shadow": "soft"}),
        ({"add_shadow": "false", "shadow_type": "none"}, {}),
        ({"shadow_type": "none", "scale": "80%"}, {"scale": "80%"}),
        ({"scale": "50%", "position": "10% 90%"}, {"scale": "50%", "position": "10% 90%", "shadow": "off"}),
        ({"scale": "original", "position": "original"}, {}),
    ],
)
def test_remove_bg_s_names_mean_the_same(client, jpeg, theirs, ours):
    asked = client.post("/v1/matte", files={"file": jpeg}, data=theirs)
    assert asked.status_code == 200, asked.text
    assert asked.content == client.post("/v1/matte", params=ours, content=jpeg).content


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"crop": True, "margin": "3%", "crop_margin": "3%"}, "mean the same"),
        ({"bg_color": "fff", "color": "#ffffff", "output": "on-color"}, "mean the same"),
        ({"shadow": "soft", "add_shadow": False}, "mean the same"),
        ({"add_shadow": True, "shadow_type": "none"}, "mean the same"),
        ({"bg_color": "fff", "output": "mask"}, "bg_color needs output on-color"),
        ({"bg_color": "81d4fa77"}, "bg_color"),
        ({"shadow_type": "car"}, "shadow_type"),
        ({"crop_margin": "3%"}, "a crop or a canvas"),
        ({"canvas": "big"}, "WIDTHxHEIGHT"),
        ({"canvas": "5x5", "scale": "original"}, "at its original size"),
        ({"crop": True, "scale": "50%"}, "a canvas to scale and position"),
    ],
)
def test_the_service_says_what_cannot_be(client, jpeg, params, message):
    answer = client.post("/v1/matte", params=params, content=jpeg)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert message in answer.json()["detail"]
    assert answer.json()["detail"].count("Expected") == 1


@pytest.mark.parametrize(
    "params",
    [
        {"canvas": "6000x5000"},
        {"canvas": "20000x10"},
        {"canvas": "10000x10001"},
        {"crop": True, "margin": "3000px"},
        {"crop": True, "margin": "0 8200px"},
        {"crop": True, "margin": "12000px"},
    ],
)
def test_what_is_framed_is_bounded_as_photos_are(client, jpeg, params):
    answer = client.post("/v1/matte", params=params, content=jpeg)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    item = {"id": "a", "image": base64.b64encode(jpeg).decode()}
    headers = {"Content-Type": "application/x-ndjson"}
    for batch in ({"json": {"items": [item]}}, {"content": json.dumps(item), "headers": headers}):
        answer = client.post("/v1/batch", params=params, **batch)
        assert '"image_too_large"' in answer.text and "base64" not in answer.text


def test_the_document_has_every_option(client):
    document = client.get("/openapi.json").json()
    form = document["paths"]["/v1/matte"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    names = {"crop", "margin", "canvas", "position", "scale", "shadow"}
    assert names | {"crop_margin", "bg_color", "add_shadow", "shadow_type"} <= set(form["properties"])
    for address in ("/v1/matte", "/v1/batch"):
        assert names <= {one["name"] for one in document["paths"][address]["post"]["parameters"]}
    assert "X-Subject-Box" in document["paths"]["/v1/matte"]["post"]["responses"]["200"]["headers"]


def test_options_are_the_same_everywhere():
    from inspect import signature

    from keras_matting_api.parameters import MatteParameters

    from keras_matting.photos.framing import OPTIONS, Framing

    for place in (keras_matting.matte, keras_matting.OutputOptions, Framing.of):
        assert set(OPTIONS) <= set(signature(place).parameters)
    assert set(OPTIONS) <= set(MatteParameters.model_fields)
