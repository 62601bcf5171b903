"""Image matting of clothing, people and products on TensorFlow and Keras 3."""

from keras_matting._version import __version__

__all__ = ["__version__", "matte"]


def __getattr__(name):
    if name == "matte":
        from keras_matting.matting import matte

        return matte
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
