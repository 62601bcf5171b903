"""`/api/remove`: the addresses and parameters of rembg's server, so that its clients work unchanged."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from keras_matting.errors import UsageError
from keras_matting.matting import OutputOptions
from keras_matting.photos.refine import Thresholds
from keras_matting.shipped import WHOLE_SUBJECT_MODEL

from .. import problems, remote
from ..admission import admit
from ..answers import answer, unless_disconnected
from ..bodies import read_form
from ..openapi import BINARY, form_body
from ..parameters import MatteParameters, check_repeated, output_options, with_fields
from ..problems import ProblemError, of_sentence
from ..worker import Job, deadline

router = APIRouter(tags=["rembg"], dependencies=[Depends(check_repeated)])
_PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A PNG", "content": {"image/png": BINARY}}}


class RembgParameters(BaseModel):
    """rembg's names. Others are ignored, as rembg does, but for those that would do something at `/v1/matte`."""

    model_config = ConfigDict(extra="ignore")  # rembg's clients send more than a model may have use for

    model: Annotated[
        str | None,
        Field(description=f"One of /v1/models; by default {WHOLE_SUBJECT_MODEL} if it is there, else the first"),
    ] = None
    a: Annotated[bool, Field(description="Alpha matting: solve the uncertain band, estimate the foreground")] = False
    af: Annotated[int, Field(ge=0, le=255, description="Alpha matting: foreground above")] = 240
    ab: Annotated[int, Field(ge=0, le=255, description="Alpha matting: background below")] = 10
    ae: Annotated[int, Field(ge=0, le=100, description="Alpha matting: erode both by so many pixels")] = 10
    om: Annotated[bool, Field(description="Only the mask")] = False
    ppm: Annotated[bool, Field(description="Post-process the mask: no specks, hard edges")] = False
    dc: Annotated[bool, Field(description="Decontaminate: estimate the foreground at soft edges")] = False
    vm: Annotated[bool, Field(description="ViTMatte, which is not here: the same as a")] = False
    bgc: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{1,3}(,[0-9]{1,3}){2,3}$", description="Background R,G,B,A; A is 0 or 255"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_names_of_matte(cls, given: Any) -> Any:
        elsewhere = set(MatteParameters.model_fields) - set(cls.model_fields)
        if isinstance(given, dict) and (names := sorted(elsewhere & set(given))):
            raise ProblemError("invalid_parameter", "rembg's parameters", repr(names[0]), "POST /v1/matte takes it.")
        return given

    def options(self) -> OutputOptions:
        """Return the library's `OutputOptions`; raises `ProblemError`."""
        solves = self.a or self.vm
        try:
            refine = Thresholds(self.af / 255, self.ab / 255, self.ae) if solves else False
        except UsageError as error:
            raise of_sentence("invalid_parameter", error) from None
        background = self._background()
        kind = "mask" if self.om else "rgba" if background is None else "on-color"
        foreground = (solves or self.dc) and not self.om
        return output_options(kind, background=background, refine=refine, foreground=foreground, harden=self.ppm)

    def _background(self) -> tuple[int, ...] | None:
        """Return the colour, or None for transparency."""
        if self.bgc is None:
            return None
        *colour, alpha = [*map(int, self.bgc.split(",")), 255][:4]
        if alpha not in (0, 255) or max(colour) > 255:
            raise ProblemError("invalid_parameter", "bgc as R,G,B,A of 0 to 255, A 0 or 255", self.bgc)
        return tuple(colour) if alpha else None


class UrlParameters(RembgParameters):
    """With the photo's address."""

    url: Annotated[str, Field(max_length=2048, description="https, of a public host; only if the service allows it")]


@router.post(
    "/api/remove",
    summary="Remove the background of a photo (rembg)",
    dependencies=[Depends(admit)],
    responses={**_PNG, **problems.responses(*problems.PHOTO_PROBLEMS)},
    openapi_extra=form_body(RembgParameters),
)
async def remove(request: Request, query: Annotated[RembgParameters, Query()]) -> Response:
    """Send the photo as `file` in a form. Parameters may be in the query or in the form."""
    photo, fields = await read_form(request)
    if not photo:
        raise ProblemError("invalid_parameter", "one file in the form, called 'file'", "none or an empty one")
    parameters = with_fields(query, fields)
    return await _remove(request, photo, parameters)


@router.get(
    "/api/remove",
    summary="Remove the background of a photo at an address (rembg)",
    dependencies=[Depends(admit)],
    responses={**_PNG, **problems.responses("refused_url", *problems.PHOTO_PROBLEMS)},
)
async def remove_from(request: Request, query: Annotated[UrlParameters, Query()]) -> Response:
    """Off by default. Fetches over https only, from public addresses only, follows no redirects, caps the size."""
    settings = request.app.state.settings
    if not settings.allow_urls:
        raise ProblemError(
            "refused_url", "a photo in the request", "an address", "This service fetches none; POST the photo."
        )
    loop = asyncio.get_running_loop()
    async with deadline(settings.deadline_s):
        photo = await unless_disconnected(
            request, loop.run_in_executor(remote.POOL, remote.fetch, query.url, settings.max_body_bytes)
        )
    return await _remove(request, photo, query)


async def _remove(request: Request, photo: bytes, parameters: RembgParameters) -> Response:
    model = _rembg_model(request) if parameters.model is None else parameters.model
    job = Job(photo, parameters.options(), "image/png", model)
    return answer(await unless_disconnected(request, request.app.state.worker.matte(job)), "image/png")


def _rembg_model(request: Request) -> str | None:
    """Return the model where none is named: the whole subject's, as with rembg; None, the first, where that is not."""
    names = [described["name"] for described in request.app.state.worker.models()]
    return WHOLE_SUBJECT_MODEL if WHOLE_SUBJECT_MODEL in names else None
