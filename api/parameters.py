"""The parameters that say what to make of a photo, and their translation for the library."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from keras_matting.errors import LackingError, UsageError
from keras_matting.matting import OutputOptions
from keras_matting.photos.framing import CanvasTooLargeError

from .problems import ProblemError, of_lacking, of_sentence

_Model = TypeVar("_Model", bound=BaseModel)
_HEX = r"#[0-9a-fA-F]{6}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
WHITE = (255, 255, 255)


class RemoveBgNames(BaseModel):
    """What remove.bg calls some of our parameters, where they mean the same; `crop`, `scale`, `position` are shared."""

    crop_margin: Annotated[str | None, Field(max_length=80, description="remove.bg's name for margin")] = None
    bg_color: Annotated[
        str | None,
        Field(
            pattern=r"^#?([0-9a-fA-F]{3}){1,2}$", description="remove.bg's name for a color, output on-color with it"
        ),
    ] = None
    add_shadow: Annotated[bool | None, Field(description="remove.bg's name for shadow=soft")] = None
    shadow_type: Annotated[Literal["none", "auto"] | None, Field(description="remove.bg's name for shadow")] = None


class MatteParameters(RemoveBgNames):
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
    crop: Annotated[bool, Field(description="Crop to the subject, specks left out")] = False
    margin: Annotated[
        str | None,
        Field(
            max_length=80,
            description="Around the subject, with crop or canvas: 3% of its box or 30px; one, two or four as in CSS",
            examples=["3%"],
        ),
    ] = None
    canvas: Annotated[
        str | None,
        Field(max_length=20, description="Put the subject on a canvas of WIDTHxHEIGHT", examples=["1600x2000"]),
    ] = None
    position: Annotated[
        str | None,
        Field(
            max_length=40,
            description="Of the subject: center (default on a canvas), top, bottom-left, 'X% Y%', original",
            examples=["center"],
        ),
    ] = None
    scale: Annotated[
        str | None,
        Field(
            max_length=20,
            description="How much of the canvas (or else of the photo's size) the subject fills, or original",
            examples=["80%"],
        ),
    ] = None
    shadow: Annotated[Literal["off", "soft"] | None, Field(description="A soft contact shadow; default off")] = None

    @model_validator(mode="after")
    def _names_do_not_contradict(self) -> "MatteParameters":
        for names in (("margin", "crop_margin"), ("color", "bg_color"), ("shadow", "add_shadow", "shadow_type")):
            given = [name for name in names if getattr(self, name) is not None]
            if given == ["add_shadow", "shadow_type"] and self.add_shadow == (self.shadow_type == "auto"):
                continue  # remove.bg's clients send both
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} mean the same; one of them is enough")
        return self

    @model_validator(mode="after")
    def _color_has_a_use(self) -> "MatteParameters":
        if self.kind != "on-color" and (name := next((n for n in ("color", "bg_color") if getattr(self, n)), None)):
            raise ValueError(f"{name} needs output on-color, not {self.output}")
        return self

    @model_validator(mode="after")
    def _foreground_has_a_use(self) -> "MatteParameters":
        if self.foreground and self.output in ("mask", "matte16"):
            raise ValueError(f"foreground needs an output with colours, not {self.output}")
        return self

    @property
    def kind(self) -> str:
        """The library's name of the output: remove.bg's background needs no other parameter to be seen."""
        return "on-color" if self.bg_color and "output" not in self.model_fields_set else self.output

    def options(self) -> OutputOptions:
        """Return the library's `OutputOptions`; raises `ProblemError` where it cannot be met."""
        has_shadow = self.shadow == "soft" or self.add_shadow or self.shadow_type == "auto"
        return output_options(
            self.kind,
            background=_color(self.color or self.bg_color),
            refine=self.refine,
            foreground=self.foreground,
            crop=self.crop,
            margin=self.margin if self.crop_margin is None else self.crop_margin,
            canvas=self.canvas,
            position=self.position,
            scale=self.scale,
            shadow="soft" if has_shadow else None,
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
    except CanvasTooLargeError as error:
        raise of_sentence("image_too_large", error) from None
    except LackingError as error:
        raise of_lacking(error) from None
    except UsageError as error:
        raise of_sentence("invalid_parameter", error) from None


def _color(text: str | None) -> tuple[int, ...]:
    if text is None:
        return WHITE
    if "," in text:
        return tuple(map(int, text.split(",")))
    digits = text.removeprefix("#")
    return tuple(bytes.fromhex(digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)))
