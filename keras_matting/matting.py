"""One photo to its cut-out: a session holds a model folder's engine, and `matte` is the library's front door."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_matting import image_files, imaging, refine
from keras_matting.config import Preset, find_model_dir
from keras_matting.engines import ENGINES, open_engine
from keras_matting.errors import UsageError
from keras_matting.files import write_atomically
from keras_matting.image_files import Photo

OUTPUTS = ("rgba", "mask", "matte16", "on-color", "on-image")


@dataclass(frozen=True)
class OutputOptions:
    """What to make of a matte.

    `kind`: one of `OUTPUTS`. `background`: an RGB colour or image (uint8) for "on-color" and "on-image".
    `refine`: solve the unknown band anew at full resolution. `foreground`: estimate the subject's own colours.
    """

    kind: str = "rgba"
    background: object = None
    refine: bool = False
    foreground: bool = False

    def __post_init__(self):
        if self.kind not in OUTPUTS:
            raise UsageError(f"Expected an output out of {', '.join(OUTPUTS)}; received {self.kind!r}.")
        if self.kind in ("on-color", "on-image") and self.background is None:
            raise UsageError(f"Output {self.kind} needs a background.")


class Session:
    """A model folder and an open engine; safe to prepare and render in several threads, to predict in one."""

    def __init__(self, model_dir, engine="auto"):
        self.model_dir = Path(model_dir)
        self.preset = Preset.load(model_dir)
        self.engine = open_engine(engine, model_dir)

    def prepare(self, photo):
        """Return the model's input for a `Photo`, float32 (height, width, 3)."""
        return imaging.prepare(photo, self.preset)

    def predict(self, batch):
        """Return raw mattes (N, h, w, 1) for prepared inputs (N, h, w, 3)."""
        return self.engine.predict(batch)

    def render(self, photo, raw_matte, options=OutputOptions()):
        """Return the output image for a photo and its raw matte: uint8, or uint16 for "matte16"."""
        matte = imaging.restore(raw_matte, photo, self.preset)
        if options.refine:
            matte = refine.refine_matte(photo.rgb, matte)
        if options.kind == "mask":
            return imaging.to_uint8(matte)
        if options.kind == "matte16":
            return imaging.to_uint16(matte)
        rgb = refine.estimate_foreground(photo.rgb, matte) if options.foreground else photo.rgb
        if options.kind == "rgba":
            return imaging.cut_out(rgb, matte)
        return imaging.composite(rgb, matte, options.background)

    def matte(self, photo, options=OutputOptions()):
        """Prepare, predict and render one `Photo`."""
        return self.render(photo, self.predict(self.prepare(photo)[None])[0], options)

    def close(self):
        """Close the engine."""
        self.engine.close()


def open_session(model="u2netp", engine="auto", log=lambda message: None):
    """Open a model by folder or name; official weights that are not here yet are fetched, converted and exported.

    Raises `UsageError` on an unknown model or engine, `EngineError` if the engine cannot run.
    """
    if engine != "auto" and engine not in ENGINES:
        raise UsageError(f"Expected an engine out of auto, {', '.join(ENGINES)}; received {engine!r}.")
    model_dir = find_model_dir(model)
    if model_dir is None:
        from keras_matting.fetch import fetch_on_demand

        model_dir = fetch_on_demand(str(model), log)
    return Session(model_dir, engine)


@functools.lru_cache(maxsize=4)
def _cached_session(model, engine):
    return open_session(model, engine)


def matte(image, model="u2netp", engine="auto", output="rgba", background=None, refine=False, foreground=False):
    """Cut the subject out of a photo.

    `image` is what you have, and you get the same kind back: encoded bytes give PNG bytes; a path writes
    `NAME.cutout.png` beside the photo and gives that path; a PIL image gives a PIL image; an array, uint8 RGB
    (H, W, 3), RGBA (H, W, 4) or grey (H, W), gives an array. `model` is a name or a model folder, `engine` a name or
    "auto". `output` is "rgba" (straight alpha), "mask", "matte16", "on-color" or "on-image" with `background`, an
    RGB tuple or array. `refine` and `foreground` need the `refine` extra.

    Raises `UsageError`, `ImageError` or `EngineError`, all `keras_matting.errors.MattingError`.
    """
    options = OutputOptions(output, background, refine, foreground)
    photo, give_back = _read(image)
    return give_back(_cached_session(str(model), engine).matte(photo, options), photo)


def _read(image):
    """Return a `Photo`, and how to turn the result into what the caller passed."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return image_files.decode(bytes(image)), lambda result, photo: image_files.encode(result, ".png", photo.icc)
    if isinstance(image, (str, Path)):
        path = Path(image)
        return read_photo(path), lambda result, photo: _write_beside(path, result, photo)
    if isinstance(image, np.ndarray):
        return _photo_of_array(image), lambda result, photo: result
    if type(image).__module__.startswith("PIL."):
        from PIL import Image, ImageOps

        upright = ImageOps.exif_transpose(image)
        mode = "RGBA" if upright.has_transparency_data else "RGB"
        if upright.mode.startswith("I;16"):
            return _photo_of_array(np.asarray(upright)), lambda result, photo: Image.fromarray(result)
        return _photo_of_array(np.asarray(upright.convert(mode))), lambda result, photo: Image.fromarray(result)
    raise UsageError(f"Expected bytes, a path, a PIL image or a NumPy array; received {type(image).__name__}.")


def read_photo(path, max_megapixels=image_files.MAX_MEGAPIXELS):
    """Return the `Photo` in a file; raises `UsageError` if it cannot be read, `ImageError` if it is no photo."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"Expected a photo at {path}; received: {error.strerror}.") from None
    return image_files.decode(data, max_megapixels)


def _photo_of_array(array):
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2:
        array = np.dstack([array] * 3)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise UsageError(
            f"Expected a uint8 array (H, W, 3), (H, W, 4) or (H, W); received {array.dtype} {array.shape}."
        )
    if array.shape[2] == 4:
        return Photo(np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3]))
    return Photo(np.ascontiguousarray(array))


def _write_beside(path, result, photo):
    target = path.with_name(f"{path.stem}.cutout.png")
    write_atomically(target, image_files.encode(result, ".png", photo.icc))
    return target
