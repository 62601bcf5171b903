"""Images of one size by index, in graph mode: kept in memory where they fit, else decoded anew each time."""

from contextlib import contextmanager

import tensorflow as tf

from keras_matting.data.base import read_sample
from keras_matting.errors import ImageError, first_line


class Store:
    """The images of some samples as uint8 tensors: `store(index)`, with a scalar integer tensor.

    `decode(image_path, alpha_path, orientation)` returns one, of static shape, in graph mode; `alpha_path` is "" where
    there is none. With `keep`, all are decoded now, `num_bytes` of them, in parallel. Raises `ImageError` naming the
    first file that cannot be read.
    """

    def __init__(self, samples, decode):
        self.samples = samples
        self._decode = decode
        self._images = [str(sample.image) for sample in samples]
        self._alphas = [str(sample.alpha or "") for sample in samples]
        self._orientations = [sample.orientation for sample in samples]
        self._kept = None

    @property
    def num_bytes(self):
        """How much memory all images take."""
        shape = tf.data.Dataset.range(1).map(self).element_spec.shape
        return len(self.samples) * shape.num_elements()

    def keep(self):
        """Decode all images into memory."""
        everything = tf.data.Dataset.range(len(self.samples)).map(self, tf.data.AUTOTUNE).batch(len(self.samples))
        options = tf.data.Options()
        options.experimental_optimization.map_and_batch_fusion = True  # each image straight into its place
        with naming_unreadable(self.samples):
            self._kept = everything.with_options(options).get_single_element()

    def __call__(self, index):
        """Return the image at `index`, uint8."""
        if self._kept is not None:
            return self._kept[index]
        paths = [tf.gather(tf.constant(paths), index) for paths in (self._images, self._alphas)]
        return self._decode(*paths, tf.gather(tf.constant(self._orientations), index))


@contextmanager
def naming_unreadable(samples):
    """Turn TensorFlow's complaint of a damaged file or a wrong mask into an `ImageError` that names it."""
    try:
        yield
    except tf.errors.OpError:
        for sample in samples:
            _require_readable(sample)
        raise  # the files are not to blame


def _require_readable(sample):
    try:
        read_sample(sample)
    except (OSError, ImageError) as error:
        truth = f" and {sample.alpha}" if sample.alpha else ""
        raise ImageError(f"Cannot read {sample.image}{truth}: {first_line(error)}") from None
