"""`POST /v1/matte`: one photo."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from .. import negotiation, problems
from ..admission import admit
from ..answers import BOX_HEADER, CONFIDENCE_HEADER, MatteDocument, answer, unless_disconnected
from ..bodies import read_photo
from ..openapi import BINARY, form_body
from ..parameters import MatteParameters, check_repeated, with_fields
from ..worker import Job

router = APIRouter(tags=["matting"], dependencies=[Depends(check_repeated)])


@router.post(
    "/v1/matte",
    summary="Matte one photo",
    dependencies=[Depends(admit)],
    responses={
        200: {
            "description": "The output. `Server-Timing` tells the phases.",
            "content": {**dict.fromkeys(negotiation.EXTENSIONS, BINARY)},
            "model": MatteDocument,
            "headers": {
                BOX_HEADER: {
                    "schema": {"type": "string", "pattern": "^[0-9]+(,[0-9]+){3}$"},
                    "description": "Of what is cropped or placed: left,top,width,height of the subject in the photo",
                },
                CONFIDENCE_HEADER: {
                    "schema": {"type": "number", "minimum": 0, "maximum": 1},
                    "description": "The overlap with the true matte that this one lets expect; 0: nothing was taken",
                },
            },
        },
        **problems.responses("not_acceptable", "no_subject", *problems.PHOTO_PROBLEMS),
    },
    openapi_extra=form_body(
        MatteParameters, other=("image/jpeg", "image/png", "image/webp", "application/octet-stream")
    ),
)
async def matte(request: Request, query: Annotated[MatteParameters, Query()]) -> Response:
    """Send the photo as the body itself, or as `file` in a form, whose other fields may carry the parameters too.

    `Accept` chooses PNG, WebP, JPEG or JSON (with base64). A photo with transparency is matted as it looks on white,
    and what was transparent stays so. The output is in sRGB and has none of the photo's metadata.
    """
    photo, fields = await read_photo(request)
    parameters = with_fields(query, fields)
    media_type = negotiation.choose(request, negotiation.formats_of(parameters.kind))
    image_type = "image/png" if media_type == negotiation.JSON else media_type
    job = Job(photo, parameters.options(), image_type, parameters.model)
    done = await unless_disconnected(request, request.app.state.worker.matte(job))
    return answer(done, media_type)
