"""Images of one size by index, in graph mode: kept in memory where they fit, else decoded anew each time."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from keras_matting.arrays import Uint8
from keras_matting.data.base import Sample, read_sample
from keras_matting.errors import ImageError, UsageError, first_line

_ALIGNMENT = 64
# TensorFlow's and XLA's words. The same type of error also stands for a full disk, whose message has a path.
_OUT_OF_MEMORY = re.compile(r"(OOM when|[Oo]ut of memory while|[Ff]ailed to allocate) .*?(?=\.?( \[Op:|$))", re.M)


class Store:
    """The images of some samples as uint8 tensors: `store(index)`, with a scalar integer tensor.

    `decode(image_path, alpha_path, orientation)` returns one, of `shape`, in graph mode; `alpha_path` is "" where there
    is none. After `keep` they come from memory, where they take `num_bytes`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        decode: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
        shape: tuple[int, ...],
    ) -> None:
        self.samples = samples
        self.num_bytes = len(samples) * math.prod(shape)
        self._decode = decode
        self._shape = shape
        # TensorFlow takes text as UTF-8 only, and file names are bytes.
        self._images = [os.fsencode(sample.image) for sample in samples]
        self._alphas = [os.fsencode(sample.alpha or "") for sample in samples]
        self._orientations = [sample.orientation for sample in samples]
        self._kept: tf.Tensor | None = None

    def keep(self) -> None:
        """Decode all images into memory; raises `ImageError` naming the first file that cannot be read."""
        array = _aligned((len(self.samples), *self._shape))
        for index, image in enumerate(self._everything()):
            array[index] = image
        self._kept = tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # the same memory, not another

    def check(self) -> None:
        """Decode all images once; raises as `keep` does."""
        for _ in self._everything():
            pass

    def _everything(self) -> Iterator[Uint8]:
        decoded = tf.autograph.experimental.do_not_convert(self._decoded)  # there is nothing to convert
        images = tf.data.Dataset.range(len(self.samples)).map(decoded, tf.data.AUTOTUNE)
        with naming_unreadable([self]):
            yield from images.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()

    def require_readable(self) -> None:
        """Raise `ImageError` naming the first file that cannot be decoded."""
        for index, sample in enumerate(self.samples):
            try:
                self._decoded(index)
            except tf.errors.OpError as error:
                raise ImageError(_complaint(sample, error)) from None

    def __call__(self, index: int | tf.Tensor) -> tf.Tensor:
        """Return the image at `index`, uint8."""
        return self._decoded(index) if self._kept is None else self._kept[index]

    def _decoded(self, index: int | tf.Tensor) -> tf.Tensor:
        image, alpha = (tf.gather(tf.constant(paths), index) for paths in (self._images, self._alphas))
        return self._decode(image, alpha, tf.gather(tf.constant(self._orientations), index))


def _complaint(sample: Sample, error: Exception) -> str:
    files = " and ".join(str(path) for path in (sample.image, sample.alpha) if path)
    try:
        read_sample(sample)
    except (OSError, ImageError) as reason:
        error = reason  # in the words of our own reader
    return f"Cannot read {files}: {first_line(error)}"


def _aligned(shape: tuple[int, ...]) -> Uint8:
    """Return an empty uint8 array where TensorFlow may use it as it is: at a multiple of 64 bytes."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


@contextmanager
def naming_unreadable(stores: Iterable[Store]) -> Iterator[None]:
    """Turn TensorFlow's complaint of a damaged file or a wrong mask into an `ImageError` that names it.

    Where memory was too small, no file is to blame: `UsageError`.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if told := _OUT_OF_MEMORY.search(str(error)):
            raise UsageError(
                f"Expected a batch to fit into memory; received: {first_line(told[0])}. Lower --batch or --size."
            ) from None
        raise
    except tf.errors.OpError:
        for store in stores:
            store.require_readable()
        raise  # the files are not to blame
