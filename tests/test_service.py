"""The service as its clients see it: a real process, real photos, every kind of answer."""

import io
import subprocess
import sys

import httpx
import numpy as np
import pytest
from keras_matting_api import photos
from PIL import Image, ImageCms
from server import start_server

from keras_matting.matting import OutputOptions, Session


@pytest.fixture(scope="module")
def client(one_layer_dir):
    with start_server(one_layer_dir) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def opened(response):
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


@pytest.mark.parametrize(
    ("output", "accept", "expected"),
    [
        ("rgba", "*/*", ("PNG", "RGBA")),
        ("rgba", "image/webp", ("WEBP", "RGBA")),
        ("rgba", "image/jpeg;q=0.9, image/webp;q=0.5", ("WEBP", "RGBA")),
        ("mask", "image/*", ("PNG", "L")),
        ("matte16", "image/png", ("PNG", "I;16")),
        ("on-color", "image/jpeg", ("JPEG", "RGB")),
    ],
)
def test_the_output_is_of_the_kind_and_format_asked_for(client, jpeg, output, accept, expected):
    image = opened(client.post("/v1/matte", params={"output": output}, content=jpeg, headers={"Accept": accept}))
    assert (image.format, image.mode, image.size) == (*expected, (120, 90))


def test_the_output_equals_the_library_s(client, jpeg, one_layer_dir):
    session = Session(one_layer_dir, "onnx-cpu")
    expected = session.matte(photos.decode(jpeg, photos.Limits()), OutputOptions("rgba"))
    assert np.array_equal(np.asarray(opened(client.post("/v1/matte", content=jpeg))), expected)


def test_a_form_is_the_same_as_a_body_and_a_query(client, jpeg):
    form = client.post("/v1/matte", files={"file": ("x.jpg", jpeg)}, data={"output": "on-color", "color": "#ff0000"})
    query = client.post("/v1/matte", params={"output": "on-color", "color": "255,0,0"}, content=jpeg)
    assert opened(form).mode == "RGB"
    assert form.content == query.content


def test_json_tells_more_than_the_image(client, jpeg):
    answer = client.post("/v1/matte", content=jpeg, headers={"Accept": "application/json"}).json()
    assert (answer["width"], answer["height"], answer["model"], answer["engine"]) == (120, 90, "one_layer", "onnx-cpu")
    assert set(answer["timings_ms"]) == {"decode", "queue", "infer", "encode"}


def test_the_answer_tells_its_phases_and_its_id(client, jpeg):
    response = client.post("/v1/matte", content=jpeg, headers={"X-Request-ID": "shirt-1"})
    phases = [part.split(";dur=") for part in response.headers["Server-Timing"].split(", ")]
    assert [name for name, _ in phases] == ["decode", "queue", "infer", "encode"]
    assert all(float(ms) >= 0 for _, ms in phases)
    assert response.headers["X-Request-ID"] == "shirt-1"
    unsafe = client.post("/v1/matte", content=jpeg, headers={"X-Request-ID": "a b"})
    assert len(unsafe.headers["X-Request-ID"]) == 32


def test_nothing_of_the_input_s_metadata_is_in_the_output(client, photo):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "at home", 1
    buffer = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(buffer, "JPEG", exif=exif, icc_profile=profile, comment=b"at home too")
    for accept in ("image/png", "image/webp"):
        image = opened(client.post("/v1/matte", content=buffer.getvalue(), headers={"Accept": accept}))
        assert not image.getexif()
        assert set(image.info) <= {"background", "loop", "timestamp", "duration"}  # Pillow's own, of any WebP


def test_colours_of_another_profile_are_converted():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")  # a profile in which blue is red
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (0, 0, 255)).save(buffer, "PNG", icc_profile=bytes(swapped))
    photo = photos.decode(buffer.getvalue(), photos.Limits())
    assert photo.icc is None
    assert photo.rgb[0, 0].tolist() == pytest.approx([255, 0, 0], abs=15)


def test_what_serves_and_why_is_told(client):
    listed = client.get("/v1/models").json()
    assert listed["default"] == "one_layer"
    assert listed["models"][0] | {"max_batch": 1} == {
        "name": "one_layer",
        "ready": True,
        "state": "ready",
        "architecture": "keras:one_layer",
        "input_size": [64, 64],
        "engine": "onnx-cpu",
        "max_batch": 1,
    }
    explained = client.get("/v1/engine", params={"model": "one_layer"}).json()
    assert (explained["engine"], explained["chosen_by"]) == ("onnx-cpu", "name")
    assert client.get("/healthz").json() == {"status": "ok"}
    assert [client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    assert client.get("/version").json()["name"] == "keras_matting"


def test_metrics_count_requests_phases_batches_and_problems(client, jpeg):
    client.post("/v1/matte", content=jpeg)
    client.post("/v1/matte", content=b"x" * 100)
    text = client.get("/metrics").text
    for sample in (
        'keras_matting_requests_total{method="POST",route="/v1/matte",status="200"}',
        'keras_matting_phase_seconds_count{model="one_layer",phase="infer"}',
        'keras_matting_batch_size_count{model="one_layer"}',
        'keras_matting_rejected_total{code="unsupported_format"}',
        'keras_matting_ready{engine="onnx-cpu",model="one_layer"} 1.0',
        "keras_matting_waiting 0.0",
        "process_resident_memory_bytes",
    ):
        assert sample in text, sample


def test_no_tensorflow_is_loaded(one_layer_dir):
    code = (
        "import sys, asyncio; from keras_matting_api.app import create_app;"
        "from keras_matting_api.settings import ServiceSettings;"
        f"app = create_app(ServiceSettings(models=({str(one_layer_dir)!r},), engine='onnx-cpu'));"
        "worker = app.state.worker; asyncio.run(worker._served[0].open());"
        "assert worker._served[0].state == 'ready';"
        "assert not {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
