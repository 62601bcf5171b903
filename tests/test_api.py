import asyncio
import io
from contextlib import asynccontextmanager

import numpy as np
import pytest
from keras_matting_api.app import MAX_BODY_BYTES, create_app
from PIL import Image

from keras_matting.image_files import encode
from keras_matting.matting import Session

httpx = pytest.importorskip("httpx")


@pytest.fixture
def ask(tiny_model_dir):
    """Send one request to a running application; return the response."""

    @asynccontextmanager
    async def client():
        app = create_app(Session(tiny_model_dir, "onnx-cpu"))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
            yield client

    async def send(method, path, content):
        async with client() as http:
            return await http.request(method, f"http://test{path}", content=content)

    return lambda method, path, content=None: asyncio.run(send(method, path, content))


def test_health_names_the_model_and_the_engine(ask):
    assert ask("GET", "/healthz").json() == {"status": "ok", "model": "tiny", "engine": "onnx-cpu"}


@pytest.mark.parametrize(("kind", "mode"), [("rgba", "RGBA"), ("mask", "L"), ("matte16", "I;16")])
def test_a_photo_comes_back_as_a_png(ask, photo, kind, mode):
    response = ask("POST", f"/v1/matte?output={kind}", encode(photo, ".jpg"))
    assert response.status_code == 200
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.mode, image.size) == ("PNG", mode, (120, 90))


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/matte", b"", 422, "image"),
        ("/v1/matte", b"no photo", 422, "image"),
        ("/v1/matte?output=psd", b"", 422, "parameter"),
        ("/v1/matte", bytes(MAX_BODY_BYTES + 1), 413, "body_too_large"),
        ("/v1/matte", encode(np.zeros((5001, 5000), np.uint8), ".png"), 422, "image"),
    ],
)
def test_a_bad_request_is_a_problem_document(ask, path, content, status, code):
    response = ask("POST", path, content)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code
