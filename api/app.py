"""The FastAPI application: one model, one engine, photos in, cut-outs out."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from keras_matting import image_files
from keras_matting._version import __version__
from keras_matting.errors import ImageError, MattingError
from keras_matting.matting import OutputOptions

MAX_BODY_BYTES = 20 * 2**20
MAX_MEGAPIXELS = 25
_KINDS = ("rgba", "mask", "matte16")


def create_app(session):
    """Return the application that serves an open `keras_matting.matting.Session`, and closes it in the end."""

    @asynccontextmanager
    async def lifespan(app):
        app.state.session = session
        yield
        session.close()

    app = FastAPI(title="keras_matting", version=__version__, lifespan=lifespan)
    app.get("/healthz")(_health)
    app.post("/v1/matte", response_class=Response)(_matte)
    return app


async def _health(request: Request):
    """Tell what serves."""
    session = request.app.state.session
    return {"status": "ok", "model": session.preset.name, "engine": session.engine.name}


async def _matte(request: Request, output: str = "rgba"):
    """Take a photo as the request's body; return a PNG: straight RGBA, or the matte in 8 or 16 bits."""
    if output not in _KINDS:
        return _problem(422, "parameter", f"Expected output out of {', '.join(_KINDS)}; received {output!r}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return _problem(413, "body_too_large", f"Expected at most {MAX_BODY_BYTES} bytes. Scale the photo down.")
    session = request.app.state.session
    try:
        photo = await asyncio.to_thread(image_files.decode, bytes(body), MAX_MEGAPIXELS)
        image = await asyncio.to_thread(session.matte, photo, OutputOptions(output))
        png = await asyncio.to_thread(image_files.encode, image, ".png", photo.icc)
    except ImageError as error:
        return _problem(422, "image", str(error))
    except MattingError as error:
        return _problem(500, "engine", str(error))
    return Response(png, media_type="image/png")


def _problem(status, code, detail):
    """Return an RFC 9457 problem."""
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
