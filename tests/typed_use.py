"""The library as its users' type checkers see it. Nothing runs here: mypy reads it (`make lint`)."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

import keras_matting
from keras_matting.engines import Engine


def matte_gives_back_the_kind_that_it_was_given(array: npt.NDArray[np.uint8], image: Image) -> None:
    assert_type(keras_matting.matte(b""), bytes)
    assert_type(keras_matting.matte("a.jpg", model=Path("model"), engine="onnx-cpu"), str)
    assert_type(keras_matting.matte(Path("a.jpg"), output="mask"), Path)
    assert_type(keras_matting.matte(image, output="on-image", background=image), Image)
    result: npt.NDArray[np.generic] = keras_matting.matte(array, output="on-color", background=(255, 255, 255))
    assert result.ndim == 3
    keras_matting.matte(1)  # type: ignore[type-var]
    keras_matting.matte(array, background=0.5)  # type: ignore[arg-type]


def a_session_mattes_photos(photo: keras_matting.Photo) -> None:
    options = keras_matting.OutputOptions("rgba", refine=True)
    with keras_matting.open_session("u2netp") as session:
        assert_type(session, keras_matting.Session)
        assert_type(session.engine, Engine)
        assert_type(session.prepare(photo), npt.NDArray[np.float32])
        assert_type(session.matte(photo, options), npt.NDArray[np.uint8 | np.uint16])
    assert_type(photo.icc, bytes | None)


def names_that_are_not_there_are_told() -> Any:
    return keras_matting.mattes  # type: ignore[attr-defined]
