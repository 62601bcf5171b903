"""tf.data pipelines: sources -> batches of normalised images, alphas and trimaps, all in graph mode."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import tensorflow as tf

from keras_matting.data.base import Source
from keras_matting.data.pipeline.augment import find
from keras_matting.data.pipeline.order import Order
from keras_matting.data.pipeline.reader import Example, Reader
from keras_matting.data.pipeline.store import naming_unreadable
from keras_matting.errors import UsageError
from keras_matting.model_folder import Preset

CACHE_GB = 4.0
_FOREVER = tf.int64.max
_VALIDATION_SEED = 0  # where cut-outs stand


class TrainingData:
    """Endless batches out of weighted sources, the same for the same seed whatever epoch they start at.

    A batch is `(image, {"alpha": alpha, "trimap": trimap})`, or `(image,)` if the sources have no truth: float32
    (batch_size, height, width, channels) at `preset.input_size`. `image` is normalised as the preset says, `alpha` is
    in [0, 1], `trimap` in {0, 0.5, 1}.

    `augment`: a name in `augment.AUGMENTATIONS`. `steps_per_epoch`: by default as many batches as all samples fill
    once. `cache_gb`: decoded photos are kept in memory as far as so many GiB hold them. `trimap_px`: the (dilate,
    erode) windows, by default 25 and 3 pixels scaled from 512 to the input's height.

    Raises `UsageError` on sources that cannot be merged, `ImageError` on a file that cannot be read: at once where it
    is to be kept in memory, else where batches are drawn inside `with data.naming_unreadable():`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        preset: Preset,
        *,
        augment: str = "none",
        batch_size: int,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        cache_gb: float = CACHE_GB,
        trimap_px: tuple[int, int] | None = None,
    ) -> None:
        _require_positive("batch_size", batch_size)
        self._reader = Reader(sources, preset, find(augment), trimap_px, cache_gb)
        self._stems = [sample.stem for source in sources for sample in source.samples]
        self._order = Order([len(source.samples) for source in sources], [source.weight for source in sources], seed)
        self._seed = seed
        self.batch_size = batch_size
        self.steps_per_epoch = max(1, len(self._stems) // batch_size) if steps_per_epoch is None else steps_per_epoch
        _require_positive("steps_per_epoch", self.steps_per_epoch)

    def dataset(self, first_epoch: int = 0) -> tf.data.Dataset:
        """Return the endless `tf.data.Dataset` from `first_epoch` on, `steps_per_epoch` batches an epoch."""

        def draws_of(epoch: tf.Tensor) -> tf.data.Dataset:
            draws = self._draws(epoch, 0, self.steps_per_epoch)
            return tf.data.Dataset.from_tensor_slices((self._order.rows(draws), draws))

        draws = tf.data.Dataset.range(first_epoch, _FOREVER).flat_map(draws_of)
        return _batches(draws, self._reader, self._seed, self.batch_size)

    def names(self, epoch: int, step: int) -> list[str]:
        """Return the stems of the samples in batch `step` of `epoch`, without decoding any."""
        rows = self._order.rows(self._draws(epoch, step, 1))
        return [self._stems[row] for row in rows.numpy()]

    def naming_unreadable(self) -> AbstractContextManager[None]:
        """Return a context in which TensorFlow's complaint of a file becomes an `ImageError` that names it."""
        return naming_unreadable(self._reader.stores)

    def _draws(self, epoch: int | tf.Tensor, step: int, steps: int) -> tf.Tensor:
        """Return the numbers, counted from the first epoch's first, of the draws of some batches."""
        start = (epoch * self.steps_per_epoch + step) * self.batch_size
        return tf.range(start, start + steps * self.batch_size, dtype=tf.int64)


def validation_batches(
    sources: Sequence[Source],
    preset: Preset,
    *,
    batch_size: int,
    trimap_px: tuple[int, int] | None = None,
    cache_gb: float = CACHE_GB,
) -> tf.data.Dataset:
    """Return a finite `tf.data.Dataset` of every sample once, in order, in batches as those of `TrainingData`.

    Nothing is augmented; a cut-out stands on the same background at the same place every time. The last batch may be
    smaller. Raises as `TrainingData` does, on a damaged file always at once.
    """
    _require_positive("batch_size", batch_size)
    reader = Reader(sources, preset, find("none"), trimap_px, cache_gb)
    for store in reader.not_kept:
        store.check()
    rows = tf.data.Dataset.range(sum(len(source.samples) for source in sources))
    return _batches(tf.data.Dataset.zip((rows, rows)), reader, _VALIDATION_SEED, batch_size)


def numbered(sets: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Return one dataset of several, one after the other; each image's targets say from which: "source", int32 (N,)."""

    def with_number(number: int) -> Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]]:
        def add(image: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            return image, {**targets, "source": tf.fill(tf.shape(image)[:1], number)}

        return add

    marked = [batches.map(with_number(number)) for number, batches in enumerate(sets)]
    whole = marked[0]
    for batches in marked[1:]:
        whole = whole.concatenate(batches)
    return whole


def _batches(draws: tf.data.Dataset, reader: Reader, seed: int, batch_size: int) -> tf.data.Dataset:
    """Return batches of samples out of (row, number of the draw)."""

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert
    def sample(row: tf.Tensor, draw: tf.Tensor) -> Example:
        return reader(row, tf.stack([tf.constant(seed, tf.int64), draw]))

    options = tf.data.Options()
    # Rewriting the graph would copy all photos kept in memory, and finds nothing to improve.
    options.experimental_optimization.apply_default_optimizations = False
    samples = draws.map(sample, tf.data.AUTOTUNE)
    return samples.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)


def _require_positive(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise UsageError(f"Expected {name} as a whole number above 0; received {value!r}.")
