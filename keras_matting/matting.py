"""One photo to its cut-out: a session holds a model folder's engine, and `matte` is the library's front door."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Float32, Uint8Or16
from keras_matting.engines import ENGINES, Choice, Engine, choose_engine
from keras_matting.engines.base import engine_failed
from keras_matting.errors import EngineError, LackingError, MattingError, UsageError
from keras_matting.files import StrPath, write_atomically
from keras_matting.model_folder import Preset
from keras_matting.photos import files as photo_files
from keras_matting.photos import given, imaging, marks
from keras_matting.photos.files import Photo
from keras_matting.photos.framing import Framing
from keras_matting.photos.given import Pixels
from keras_matting.photos.given import read_photo as read_photo
from keras_matting.photos.options import flag
from keras_matting.photos.output import Finished, encoded, finish, output_profile
from keras_matting.photos.refine import Thresholds
from keras_matting.session_cache import SessionCache
from keras_matting.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from PIL.Image import Image

Background: TypeAlias = Photo | Sequence[int] | npt.NDArray[np.integer]
# Of an image that is given, and given back
_Kind = TypeVar("_Kind", bytes, npt.NDArray[np.generic], "Image", str, Path)
OUTPUTS = ("rgba", "mask", "matte16", "on-color", "on-image")
_WITH_BACKGROUND = ("on-color", "on-image")


@dataclass(frozen=True)
class OutputOptions:
    """What to make of a matte.

    `kind`: one of `OUTPUTS`. `background`: an RGB colour or image (uint8), both in sRGB, or a `Photo` with a profile of
    its own, for "on-color" and "on-image".
    `refine`: solve the unknown band anew at full resolution: True, or the `refine.Thresholds` that say where it is.
    `foreground`: estimate the subject's own colours. `harden`: a matte of 0 and 1, without specks.
    `crop`, `margin`, `canvas`, `position`, `scale`, `shadow`: a shop picture, in the words of `predict`'s options:
    `margin="3% 30px"`, `canvas="1600x2000"` or (width, height), `position="bottom"`, `scale="80%"`, `shadow="soft"`;
    `framing` is what they come to.
    """

    kind: str = "rgba"
    background: Background | None = None
    refine: bool | Thresholds = False
    foreground: bool = False
    harden: bool = False
    crop: bool = False
    margin: str | None = None
    canvas: str | tuple[int, int] | None = None
    position: str | None = None
    scale: str | None = None
    shadow: str | None = None
    framing: Framing | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.kind not in OUTPUTS:
            raise UsageError(f"Expected an output out of {', '.join(OUTPUTS)}; received {self.kind!r}.")
        for name in ("foreground", "harden", "crop"):
            object.__setattr__(self, name, flag(getattr(self, name), name))
        if not isinstance(self.refine, Thresholds):
            object.__setattr__(self, "refine", flag(self.refine, "refine"))
        if self.kind in _WITH_BACKGROUND:
            _check_background(self.kind, self.background)
        if self.foreground and self.kind in ("mask", "matte16"):
            raise UsageError(f"Expected an output with colours for foreground; received {self.kind}. Leave out one.")
        if (self.refine or self.foreground) and find_spec("pymatting") is None:
            raise LackingError(
                "Expected pymatting, which refines mattes and estimates foregrounds; received an installation without "
                "it. Run: pip install 'keras-matting[refine]'."
            )
        framing = Framing.of(self.crop, self.margin, self.canvas, self.position, self.scale, self.shadow)
        object.__setattr__(self, "framing", framing)


def _check_background(kind: str, background: Background | None) -> None:
    """Raise `UsageError` unless it is an RGB colour of numbers from 0 to 255, a uint8 image (H, W, 3), or a `Photo`."""
    if isinstance(background, Photo):
        return
    try:
        array = np.asarray(background)
        colour = array.shape == (3,) and array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255
    except ValueError:
        array, colour = np.empty(0), False
    image = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and array.size > 0
    if not colour and not image:
        raise UsageError(
            f"Output {kind} needs a background: an RGB colour of three numbers from 0 to 255 or a uint8 image "
            f"(H, W, 3); received {str(background)[:60]!r}."
        )


def output_and_background(
    output: str | None, background: Background | Image | StrPath | None
) -> tuple[str, Background | None]:
    """Return the kind of output, and the background as `OutputOptions` takes it: also a path or a PIL image.

    Where no output is named, a background makes it "on-color" or "on-image"; with one that has no place for a
    background, `UsageError`.
    """
    if isinstance(background, (str, os.PathLike)) and output != "on-color":
        background = given.read_background(background)
    elif given.is_pil(background):
        background = given.photo_of_pil(background)
    if output is None:
        is_picture = isinstance(background, Photo) or getattr(background, "ndim", 1) == 3
        output = "rgba" if background is None else "on-image" if is_picture else "on-color"
    elif background is not None and output in OUTPUTS and output not in _WITH_BACKGROUND:
        raise UsageError(
            f"Expected output on-color or on-image for a background; received {output}. Leave out one of the two."
        )
    return output, cast("Background | None", background)


class Session:
    """A model folder and an open engine; safe in several threads, which take turns to predict.

    Photos are `Photo`, or arrays as `matte` takes them; anything else raises `UsageError`.
    `engine`: a name, "auto", or an open `Engine`, which the session takes over. `choice` says how it was chosen, and
    `engine` is the open one. As a context manager it closes itself.
    """

    def __init__(self, model_dir: StrPath, engine: str | Engine = "auto") -> None:
        self.model_dir = Path(model_dir)
        self.preset = Preset.load(model_dir)
        self.choice = choose_engine(engine, model_dir) if isinstance(engine, str) else Choice(engine, "name")
        self.engine = self.choice.engine
        self._is_open = True
        self._turn = threading.Lock()

    def prepare(self, photo: Photo | Pixels) -> Float32:
        """Return the model's input for a photo, float32 (height, width, 3)."""
        return imaging.prepare(given.as_photo(photo), self.preset)

    def predict(self, batch: Float32) -> Float32:
        """Return raw mattes (N, h, w, 1) for inputs (N, h, w, 3).

        Raises `EngineError` on NaN or infinity and on whatever the engine's runtime raises (but `MemoryError`, which
        stays one), `UsageError` where the session is closed.
        """
        with self._turn:
            if not self._is_open:
                raise UsageError(f"Expected an open session; this one of {self.preset.name} is closed. Open another.")
            try:
                mattes = self.engine.predict(batch)
            except (MattingError, MemoryError):
                raise
            except Exception as error:  # each runtime has classes of its own
                raise engine_failed(self.engine, error) from error
        if not np.isfinite(mattes).all():
            raise EngineError(f"Engine {self.engine.name} gave NaN or infinity; use another engine or model.")
        return mattes

    def raw_matte(self, photo: Photo | Pixels) -> Float32:
        """Return the raw matte (h, w, 1) of one photo; raises what `predict` does."""
        return self.predict(self.prepare(photo)[None])[0]

    def restore(self, photo: Photo | Pixels, raw_matte: Float32) -> Float32:
        """Return the matte at the photo's size, float32 (H, W) in [0, 1]."""
        return imaging.restore(raw_matte, given.as_photo(photo), self.preset)

    def render(self, photo: Photo | Pixels, raw_matte: Float32, options: OutputOptions = OutputOptions()) -> Uint8Or16:
        """Return the output image for a photo and its raw matte: uint8, or uint16 for "matte16".

        Its colours are in `photos.output.output_profile(photo, options)`. Raises `MattingError` where the photo cannot
        be framed as asked: there is no subject, above all.
        """
        return self.finish(photo, raw_matte, options).image

    def finish(
        self,
        photo: Photo | Pixels,
        raw_matte: Float32,
        options: OutputOptions = OutputOptions(),
        check_size: Callable[[int, int], object] | None = None,
    ) -> Finished:
        """Do as `render`; return the image with the subject's box and how sure the matte is.

        `check_size(width, height)` may raise what it likes of a framed output, before its pixels are made.
        """
        photo = given.as_photo(photo)
        return finish(photo, self.restore(photo, raw_matte), options, check_size)

    def cut_out(self, photo: Photo | Pixels, options: OutputOptions = OutputOptions()) -> Finished:
        """Prepare, predict and finish one photo."""
        photo = given.as_photo(photo)
        return self.finish(photo, self.raw_matte(photo), options)

    def matte(self, photo: Photo | Pixels, options: OutputOptions = OutputOptions()) -> Uint8Or16:
        """Prepare, predict and render one photo."""
        return self.cut_out(photo, options).image

    def close(self) -> None:
        """Close the engine, once no thread predicts any more; a second call does nothing."""
        with self._turn:
            if self._is_open:
                self._is_open = False
                self.engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_session(model: StrPath = DEFAULT_MODEL, engine: str = "auto") -> Session:
    """Open a model by folder or name; known weights that are not here, or not exported yet, are fetched and exported.

    Raises `UsageError` on an unknown model or engine, `EngineError` if the engine cannot run.
    """
    if engine != "auto" and engine not in ENGINES:
        raise UsageError(f"Expected an engine out of auto, {', '.join(ENGINES)}; received {engine!r}.")
    from keras_matting.weights.fetch import ready_model_dir

    return Session(ready_model_dir(model), engine)


_sessions = SessionCache(open_session, size=4)


def matte(
    image: _Kind,
    model: StrPath = DEFAULT_MODEL,
    engine: str = "auto",
    output: str | None = None,
    background: Background | Image | StrPath | None = None,
    refine: bool | Thresholds = False,
    foreground: bool = False,
    crop: bool = False,
    margin: str | None = None,
    canvas: str | tuple[int, int] | None = None,
    position: str | None = None,
    scale: str | None = None,
    shadow: str | None = None,
) -> _Kind:
    """Cut the clothing out of a photo, or with another model its whole subject.

    `image` is what you have, and you get the same kind back: encoded bytes give PNG bytes; a PIL image gives a PIL
    image; an array, uint8 RGB (H, W, 3), RGBA (H, W, 4) or grey (H, W), gives an array; a path writes `NAME.cutout.png`
    beside the photo, or `NAME.mask.png` and so on after `output`, and gives that path, a str for a str, else a `Path`.
    Where another photo of that name is beside it, or a file that is not ours, it is `NAME.jpg.cutout.png`. `model` is a
    name or a model folder, `engine` a name or "auto". `output` is "rgba" (straight alpha, the default), "mask",
    "matte16", "on-color" or "on-image" with `background`, an RGB tuple or array in sRGB, a PIL image or a path; a
    `background` by itself says which of the two. Outputs with colours keep
    the photo's colour profile, and the background is converted into it. `refine` and `foreground` need the `refine`
    extra. `crop` and what follows make a shop picture of it, as `OutputOptions` says.

    Raises `UsageError`, `ImageError` or `EngineError`, all `keras_matting.errors.MattingError`.
    """
    options = OutputOptions(
        *output_and_background(output, background),
        refine,
        foreground,
        crop=crop,
        margin=margin,
        canvas=canvas,
        position=position,
        scale=scale,
        shadow=shadow,
    )
    if isinstance(image, (str, os.PathLike)):
        path: Any = _matte_file(Path(os.fsdecode(image)), str(model), engine, options)
        return str(path) if isinstance(image, str) else path
    photo, give_back = _read(image)
    with _sessions.lend(str(model), engine) as session:
        result = session.matte(photo, options)
    return give_back(result, output_profile(photo, options))


def _read(image: object) -> tuple[Photo, Callable[[Uint8Or16, bytes | None], Any]]:
    """Return a `Photo`, and how to turn the result and its profile into what the caller passed."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return photo_files.decode(bytes(image)), lambda result, icc: photo_files.encode(result, ".png", icc)
    if isinstance(image, np.ndarray):
        return given.photo_of_array(image), lambda result, icc: result
    if given.is_pil(image):
        return given.photo_of_pil(image), given.pil_of_result
    raise UsageError(f"Expected bytes, a path, a PIL image or a NumPy array; received {type(image).__name__}.")


def _matte_file(path: Path, model: str, engine: str, options: OutputOptions) -> Path:
    """Write the output of a photo beside it; return its path."""
    data = given.read_file(path)
    target = _target_beside(path, data, "cutout" if options.kind == "rgba" else options.kind)
    photo = photo_files.decode(data)
    with _sessions.lend(model, engine) as session:
        finished = session.cut_out(photo, options)
    mark = marks.made_by(session.preset, options) | marks.made_of(path, data)
    write_atomically(target, encoded(finished, photo, options, ".png", mark))
    return target


def _target_beside(path: Path, data: bytes, label: str) -> Path:
    """Return where an output goes that replaces nothing but an earlier one of this photo; else raise `UsageError`."""
    extensions = {variant for name in photo_files.EXTENSIONS for variant in (name, name.upper())} - {path.suffix}
    is_shared = any(path.with_suffix(extension).exists() for extension in extensions)
    full = path.with_name(f"{path.name}.{label}.png")
    for target in (full,) if is_shared else (path.with_name(f"{path.stem}.{label}.png"), full):
        refusal = marks.why_not_own(target, path, data)
        if refusal is None:
            return target
    raise UsageError(f"{refusal}. Move it away, or pass the photo's bytes and write the result where you want it.")
