"""Image matting of clothing, people and products on TensorFlow and Keras 3."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from keras_matting._version import __version__

if TYPE_CHECKING:  # what editors and type checkers see; at run time each is imported when it is asked for
    from keras_matting.errors import EngineError, ImageError, MattingError, UsageError, WeightsError
    from keras_matting.matting import OutputOptions, Session, matte, open_session
    from keras_matting.photos.confidence import confidence
    from keras_matting.photos.files import Photo
    from keras_matting.video.run import VideoResult, matte_video

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent, unless its user configures logging

_MODULE_OF = {
    "EngineError": "errors",
    "ImageError": "errors",
    "MattingError": "errors",
    "OutputOptions": "matting",
    "Photo": "photos.files",
    "Session": "matting",
    "UsageError": "errors",
    "VideoResult": "video.run",
    "WeightsError": "errors",
    "confidence": "photos.confidence",
    "matte": "matting",
    "matte_video": "video.run",
    "open_session": "matting",
}

__all__ = [
    "EngineError",
    "ImageError",
    "MattingError",
    "OutputOptions",
    "Photo",
    "Session",
    "UsageError",
    "VideoResult",
    "WeightsError",
    "__version__",
    "confidence",
    "matte",
    "matte_video",
    "open_session",
]


if not TYPE_CHECKING:  # which would take any name for one that is there

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"keras_matting.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
