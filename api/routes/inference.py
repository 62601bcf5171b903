"""`/v2`: the Open Inference Protocol, so that clients of KServe and Triton can send prepared tensors.

https://github.com/kserve/open-inference-protocol, with the binary tensors of Triton's extension, which its clients use.
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import anyio
import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from keras_matting._version import __version__
from keras_matting.arrays import Float32

from .. import problems
from ..admission import admit, check_key
from ..answers import unless_disconnected
from ..bodies import in_parser, json_of
from ..openapi import json_body
from ..problems import ProblemError

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
INPUT, OUTPUT, DATATYPE = "image", "matte", "FP32"
_HEADER_LENGTH = "inference-header-content-length"
_LENGTH = re.compile("[0-9]{1,20}")
_GUARDED: dict[str, Any] = {"dependencies": [Depends(check_key)]}
_MODEL_PROBLEMS = problems.responses("unauthorized", "unknown_model", "invalid_parameter")


class Tensor(BaseModel):
    """An input: normalised as the model's preset says, with its values in `data`, or after the JSON."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["image"]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Field(min_length=4, max_length=4)]
    datatype: Literal["FP32"]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["matte"]
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """The protocol's request."""

    model_config = ConfigDict(extra="ignore")
    id: Annotated[str | None, Field(max_length=128)] = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[Wanted], Field(max_length=1)] | None = None
    parameters: dict[str, Any] = {}


@router.get("", summary="The server", response_model=None, responses=problems.responses("unauthorized"), **_GUARDED)
async def server() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "keras_matting", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", summary="Is the process alive?", responses={503: {"description": "It has to be replaced"}})
async def live(request: Request) -> JSONResponse:
    """As `/healthz`."""
    alive = request.app.state.worker.alive
    return JSONResponse({"live": alive}, 200 if alive else 503)


@router.get("/health/ready", summary="Can it be asked?", responses={503: {"description": "Not yet, or no longer"}})
async def ready(request: Request) -> JSONResponse:
    """As `/readyz`."""
    is_ready = request.app.state.worker.ready and not request.app.state.draining
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


@router.get(
    "/models/{name}", summary="A model's inputs and outputs", response_model=None, responses=_MODEL_PROBLEMS, **_GUARDED
)
@router.get("/models/{name}/versions/1", include_in_schema=False, response_model=None, **_GUARDED)
async def metadata(request: Request, name: str) -> dict[str, Any]:
    """One input, one output, both float32."""
    described = request.app.state.worker.model(name)
    height, width = described.get("input_size", (-1, -1))
    return {
        "name": described["name"],
        "versions": ["1"],
        "platform": f"keras_matting_{described.get('engine', 'loading')}",
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, height, width, 3]}],
        "outputs": [{"name": OUTPUT, "datatype": DATATYPE, "shape": [-1, height, width, 1]}],
    }


@router.get(
    "/models/{name}/ready",
    summary="Can the model be asked?",
    **_GUARDED,
    responses={**_MODEL_PROBLEMS, 503: {"description": "Not yet"}},
)
@router.get("/models/{name}/versions/1/ready", include_in_schema=False, **_GUARDED)
async def model_ready(request: Request, name: str) -> JSONResponse:
    """Answers 503 while it is loading or being opened again."""
    is_ready = request.app.state.worker.model(name)["ready"]
    return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)


@router.post(
    "/models/{name}/infer",
    summary="Mattes of prepared photos",
    dependencies=[Depends(admit)],
    responses={
        200: {
            "description": "The protocol's response",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems.responses("too_many_items", *problems.INFERENCE_PROBLEMS),
    },
    openapi_extra=json_body(InferRequest),
)
@router.post("/models/{name}/versions/1/infer", include_in_schema=False, dependencies=[Depends(admit)])
async def infer(request: Request, name: str) -> Response:
    """Input "image", FP32 (N, height, width, 3); output "matte", FP32 (N, height, width, 1), before any output rule."""
    described = request.app.state.worker.model(name)
    body, header_length = await request.body(), request.headers.get(_HEADER_LENGTH)
    max_items = request.app.state.settings.max_items
    asked, batch = await in_parser(_asked, body, header_length, described, max_items)
    with request.app.state.admission.photos(len(batch)):
        mattes = await unless_disconnected(request, request.app.state.worker.infer(name, batch))
    # In a thread, since many numbers take a second, in which no probe would be answered.
    return await anyio.to_thread.run_sync(_response, asked, described["name"], np.ascontiguousarray(mattes, np.float32))


def _asked(
    body: bytes, header_length: str | None, described: Mapping[str, Any], max_items: int
) -> tuple[InferRequest, Float32]:
    """Return (`InferRequest`, its input as float32 (N, height, width, 3))."""
    asked, binary = _parse(body, header_length, *_parts(described, max_items))
    return asked, _array(asked.inputs[0], binary, described, max_items)


def _parts(described: Mapping[str, Any], max_items: int) -> tuple[int, int]:
    """Return how many lists and values the largest input has, as nested as it may be."""
    if "input_size" not in described:  # a model that is loading has none yet
        return sys.maxsize, sys.maxsize
    height, width = described["input_size"]
    return max_items * (1 + height * (1 + width)), max_items * height * width * 3


def _parse(body: bytes, header_length: str | None, lists: int, values: int) -> tuple[InferRequest, bytes]:
    """Return (`InferRequest`, bytes after the JSON); raises `ProblemError` or Pydantic's `ValidationError`."""
    length = len(body)
    if header_length is not None:
        if not _LENGTH.fullmatch(header_length) or int(header_length) > len(body):
            raise ProblemError("malformed_request", f"{_HEADER_LENGTH} of at most {len(body)}", header_length[:40])
        length = int(header_length)
    return InferRequest.model_validate(json_of(body[:length], lists=lists, values=values)), body[length:]


def _array(tensor: Tensor, binary: bytes, described: Mapping[str, Any], max_items: int) -> Float32:
    """Return the input as float32 (N, height, width, 3)."""
    count, *shape = tensor.shape
    size = described.get("input_size", shape[:2])  # a model that is loading has none yet
    if shape != [*size, 3]:
        fitting = ", ".join(map(str, ("N", *size, 3)))
        raise ProblemError("invalid_parameter", f"shape [{fitting}]", str(tensor.shape))
    if count > max_items:
        raise ProblemError("too_many_items", f"at most {max_items} photos", str(count))
    values = _values(tensor, binary)
    if values.size != math.prod(tensor.shape):
        raise ProblemError("invalid_parameter", f"{math.prod(tensor.shape)} values", str(values.size))
    if not np.isfinite(values).all():
        raise ProblemError("invalid_parameter", "finite values", "NaN or infinity")
    return values.reshape(tensor.shape)


def _values(tensor: Tensor, binary: bytes) -> Float32:
    if tensor.data is None:
        size = tensor.parameters.get("binary_data_size")
        if size != len(binary) or size % 4:
            raise ProblemError(
                "invalid_parameter", "data, or as many binary bytes as binary_data_size says", f"{len(binary)}"
            )
        return np.frombuffer(binary, "<f4")
    try:
        with np.errstate(over="ignore"):  # infinity is refused later
            return np.asarray(tensor.data, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ProblemError(
            "invalid_parameter", "data as numbers, flat or nested like shape", "something else"
        ) from None


def _response(asked: InferRequest, model: str, mattes: Float32) -> Response:
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": DATATYPE, "shape": list(mattes.shape)}
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": [tensor]}
    if asked.id is not None:
        answer["id"] = asked.id
    wanted = asked.outputs[0].parameters if asked.outputs else {}
    if not wanted.get("binary_data", asked.parameters.get("binary_data_output", False)):
        tensor["data"] = mattes.ravel().tolist()
        return JSONResponse(answer)
    tensor["parameters"] = {"binary_data_size": mattes.nbytes}
    header = json.dumps(answer).encode()
    return Response(
        header + mattes.astype("<f4").tobytes(),
        media_type="application/octet-stream",
        headers={_HEADER_LENGTH: str(len(header))},
    )
