"""One sample of some sources, by row: decoded, composited, augmented, normalised, with its trimap; in graph mode."""

from functools import partial

import tensorflow as tf

from keras_matting.data import augment as augmentation
from keras_matting.data.compositing import BACKGROUND_SCALE, composite
from keras_matting.data.decode import load_background, load_cutout, load_photo
from keras_matting.data.geometry import place
from keras_matting.data.randomness import fold_in, uniform
from keras_matting.data.store import Store
from keras_matting.data.trimap import scaled_px, trimap
from keras_matting.errors import UsageError

_BYTES_PER_GB = 1 << 30


class Reader:
    """The samples of all sources by row, their own order joined end to end: `reader(row, seed)`.

    Returns what one place of a batch holds: `(image, {"alpha", "trimap"})`, or `(image,)` without truth. `seed`: int64
    (2,), decides what is random about it. `files`: all samples and backgrounds that it reads.
    """

    def __init__(self, sources, preset, ops, trimap_px, cache_gb):
        _require_mergeable(sources)
        self._preset = preset
        self._ops = ops
        self._trimap_px = scaled_px(preset.input_size[0], trimap_px)
        self._is_labelled = sources[0].kind != "unlabelled"
        self._starts = tf.cumsum(tf.constant([len(source.samples) for source in sources], tf.int64), exclusive=True)
        size = augmentation.load_size(ops, preset.input_size)
        stores = [_stores(source, size, preset.interpolation) for source in sources]
        self._draw = [_composited if len(pair) == 2 else _plain for pair in stores]
        self._stores = stores
        every_store = [store for pair in stores for store in pair]
        self.files = [sample for store in every_store for sample in store.samples]
        _keep_what_fits(every_store, cache_gb * _BYTES_PER_GB)
        self._compiled = tf.function(self._finished, autograph=False, jit_compile=True)

    def __call__(self, row, seed):
        source = tf.searchsorted(self._starts, [row], side="right")[0] - 1
        branches = [
            partial(draw, stores, row - self._starts[index], seed)
            for index, (draw, stores) in enumerate(zip(self._draw, self._stores, strict=True))
        ]
        sample = tf.switch_case(source, branches) if len(branches) > 1 else branches[0]()
        image, alpha = self._compiled(sample, augmentation.draw(self._ops, seed))
        if not self._is_labelled:
            return (image,)
        return image, {"alpha": alpha, "trimap": trimap(alpha, *self._trimap_px)}

    def _finished(self, sample, parameters):
        sample = augmentation.transform(self._ops, sample, parameters)
        return normalise(sample["image"], self._preset), sample["alpha"]


def normalise(image, preset):
    """Return the model's input from float (H, W, 3) in [0, 1], as `imaging.prepare` does from the photo."""
    if preset.scale == "image-max":
        brightest = tf.reduce_max(image)
        image /= tf.where(brightest > 0, brightest, 1.0)
    return (image - tf.constant(preset.mean, tf.float32)) / tf.constant(preset.std, tf.float32)


def _plain(stores, index, seed):
    pixels = tf.cast(stores[0](index), tf.float32) / 255
    return {"image": pixels[..., :3], "alpha": pixels[..., 3:]}


def _composited(stores, index, seed):
    cutouts, backgrounds = stores
    (part,) = uniform(fold_in(seed, -1), (0, 1))
    background = place(part, len(backgrounds.samples) - 1)
    return composite(cutouts(index), backgrounds(background), fold_in(seed, -2))


def _stores(source, size, interpolation):
    """Return the source's stores: (photos,), or (cut-outs, backgrounds)."""
    if source.kind != "composite":
        return (Store(source.samples, partial(load_photo, size=size, interpolation=interpolation)),)
    larger = tuple(round(side * BACKGROUND_SCALE) for side in size)
    cutouts = Store(source.samples, partial(load_cutout, size=size))
    return cutouts, Store(source.backgrounds, partial(load_background, size=larger))


def _keep_what_fits(stores, budget_bytes):
    for store in stores:
        if store.num_bytes <= budget_bytes:
            budget_bytes -= store.num_bytes
            store.keep()


def _require_mergeable(sources):
    if not sources or any(not source.samples for source in sources):
        empty = ", ".join(source.name for source in sources if not source.samples)
        raise UsageError(f"Expected photos in every source; found none{f' in {empty}' if empty else ''}.")
    if len({source.kind == "unlabelled" for source in sources}) > 1:
        names = ", ".join(source.name for source in sources if source.kind == "unlabelled")
        raise UsageError(f"Expected sources all with truth or all without; these have none: {names}.")
