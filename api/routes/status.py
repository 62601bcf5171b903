"""What serves, and how it fares: for probes, operators and the curious."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from keras_matting._version import __version__

from .. import problems
from ..admission import check_key

router = APIRouter(tags=["status"])
_GUARDED: dict[str, Any] = {"dependencies": [Depends(check_key)]}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Is the process alive?", responses={503: {"description": "It has to be replaced"}})
async def healthz(request: Request) -> JSONResponse:
    """Answers 503 if an engine has been computing one batch for a minute: then only a new process helps."""
    alive = request.app.state.worker.alive
    return JSONResponse({"status": "ok" if alive else "stalled"}, 200 if alive else 503)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Can it be asked?", responses={503: {"description": "Loading, failed or draining"}})
async def readyz(request: Request) -> JSONResponse:
    """Answers 503 while a model is loading or being opened again, and from SIGTERM on; those on demand do not count."""
    state = request.app.state
    ready = state.worker.ready and not state.draining
    status = "ready" if ready else "draining" if state.draining else "loading"
    return JSONResponse({"status": status, "models": state.worker.models()}, 200 if ready else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, latency by phase, batch sizes, what waits, what was rejected, the engine."""
    state = request.app.state
    text = state.metrics.as_text(state.worker, state.admission.inside)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/version", summary="Name and version", response_model=None)
async def version() -> dict[str, str]:
    """The package's name and version."""
    return {"name": "keras_matting", "version": __version__}


@router.get(
    "/v1/models",
    summary="The models served",
    response_model=None,
    responses=problems.responses("unauthorized"),
    **_GUARDED,
)
async def models(request: Request) -> dict[str, Any]:
    """The first is the default. One with the state "on_demand" is fetched and opened when a photo asks for it."""
    listed = request.app.state.worker.models()
    return {"default": listed[0]["name"], "models": listed}


@router.get(
    "/v1/engine",
    summary="What serves a model, and why it won",
    response_model=None,
    responses=problems.responses(
        "unauthorized",
        "unknown_model",
        "not_ready",
        "model_loading",
        "model_unavailable",
        "engine_failed",
        "invalid_parameter",
    ),
    **_GUARDED,
)
async def engine(request: Request, model: str | None = None) -> dict[str, Any]:
    """The engine, how it really runs, and the reason: a benchmark's verdict, a probe, or its name in the settings."""
    return request.app.state.worker.explain(model)
