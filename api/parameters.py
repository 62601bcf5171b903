"""The parameters that say what to make of a photo, and their translation for the library."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from keras_matting.errors import UsageError
from keras_matting.matting import OutputOptions

from .problems import ProblemError

_Model = TypeVar("_Model", bound=BaseModel)
_HEX = r"#[0-9a-fA-F]{6}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
WHITE = (255, 255, 255)


class MatteParameters(BaseModel):
    """What to make of a photo; in the query, or as fields of the form."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(description="One of /v1/models; by default the first")] = None
    output: Annotated[
        Literal["rgba", "mask", "on-color", "matte16"],
        Field(description="Cut-out with straight alpha, 8-bit matte, subject on a colour, or 16-bit matte"),
    ] = "rgba"
    color: Annotated[
        str | None,
        Field(
            pattern=rf"^({_HEX}|{_BYTE},{_BYTE},{_BYTE})$", description="For on-color: #rrggbb or R,G,B; default white"
        ),
    ] = None
    foreground: Annotated[bool, Field(description="Take the old background's tint out of soft edges")] = False
    refine: Annotated[bool, Field(description="Solve the uncertain band anew from the photo; takes seconds")] = False

    @model_validator(mode="after")
    def _color_has_a_use(self) -> "MatteParameters":
        if self.color is not None and self.output != "on-color":
            raise ValueError(f"color needs output on-color, not {self.output}")
        return self

    @model_validator(mode="after")
    def _foreground_has_a_use(self) -> "MatteParameters":
        if self.foreground and self.output in ("mask", "matte16"):
            raise ValueError(f"foreground needs an output with colours, not {self.output}")
        return self

    def options(self) -> OutputOptions:
        """Return the library's `OutputOptions`; raises `ProblemError` if something that it needs is not installed."""
        return output_options(
            self.output, background=_color(self.color), refine=self.refine, foreground=self.foreground
        )


def with_fields(query: _Model, fields: Mapping[str, str]) -> _Model:
    """Return the query's parameters, a model of Pydantic, with those of a form added.

    Raises Pydantic's `ValidationError`, and `ProblemError` if one is in both, since only one of its values would count.
    """
    if both := query.model_fields_set & set(fields):
        raise ProblemError("invalid_parameter", "each parameter in the query or in the form", f"{min(both)!r} in both")
    return type(query).model_validate({**query.model_dump(exclude_unset=True), **fields})


async def check_repeated(request: Request) -> None:
    """Raise `ProblemError` if a name is in the query twice, since only one of its values would count: a dependency."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if repeated := next((name for name, count in counts.items() if count > 1), None):
        raise ProblemError("invalid_parameter", "each parameter of the query once", f"{repeated[:40]!r} again")


def output_options(kind: str, **options: Any) -> OutputOptions:
    """Return `OutputOptions`, or raise the `ProblemError` that tells why not."""
    try:
        return OutputOptions(kind, **options)
    except UsageError as error:
        raise ProblemError("invalid_parameter", "options that this service has", "others", str(error)) from None


def _color(text: str | None) -> tuple[int, ...]:
    if text is None:
        return WHITE
    if text.startswith("#"):
        return tuple(bytes.fromhex(text[1:]))
    return tuple(map(int, text.split(",")))
