"""One sample of some sources, by row: decoded, composited, augmented, normalised, with its trimap; in graph mode."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TypeAlias

import tensorflow as tf

from keras_matting.data.base import Source
from keras_matting.data.pipeline.augment import Augmentation
from keras_matting.data.pipeline.colour import ColourOp
from keras_matting.data.pipeline.compositing import BACKGROUND_SCALE, composite
from keras_matting.data.pipeline.decode import load_background, load_cutout, load_photo
from keras_matting.data.pipeline.randomness import places, split
from keras_matting.data.pipeline.store import Store
from keras_matting.data.pipeline.trimap import scaled_px, trimap
from keras_matting.errors import UsageError
from keras_matting.model_folder import Preset

# (image, {"alpha", "trimap"}), or (image,) without truth
Example: TypeAlias = tuple[tf.Tensor] | tuple[tf.Tensor, dict[str, tf.Tensor]]
_BYTES_PER_GB = 1 << 30


class Reader:
    """The samples of all sources by row, each source's in its own order, joined end to end: `reader(row, seed)`.

    Returns what one place of a batch holds: `(image, {"alpha", "trimap"})`, or `(image,)` without truth. `seed`: int64
    (2,), decides what is random about it. `stores`: all that it reads from; `not_kept`: those too large for `cache_gb`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        preset: Preset,
        augmentation: Augmentation,
        trimap_px: tuple[int, int] | None,
        cache_gb: float,
    ) -> None:
        _require_mergeable(sources)
        self._size = preset.input_size
        self._geometry = augmentation.geometry
        self._trimap_px = scaled_px(self._size[0], trimap_px)
        self._is_labelled = sources[0].kind != "unlabelled"
        self._starts = tf.cumsum(tf.constant([len(source.samples) for source in sources], tf.int64), exclusive=True)
        load_size = self._geometry.load_size(self._size)
        self._source_stores = [_stores(source, load_size, preset.interpolation) for source in sources]
        self.stores = [store for stores in self._source_stores for store in stores]
        self.not_kept = _keep_what_fits(self.stores, cache_gb * _BYTES_PER_GB)
        self._transform = ColourTransform(augmentation.colour, preset)

    def __call__(self, row: tf.Tensor, seed: tf.Tensor) -> Example:
        """Return the sample of a row, a scalar int64 tensor."""
        draw_seed, geometry_seed, colour_seed = split(seed, 3)
        source = tf.searchsorted(self._starts, [row], side="right")[0] - 1
        branches = [
            partial(_rgba, stores, row - self._starts[index], draw_seed)
            for index, stores in enumerate(self._source_stores)
        ]
        rgba = branches[0]() if len(branches) == 1 else tf.switch_case(source, branches)
        rgba = self._geometry(rgba, self._size, geometry_seed)
        image, alpha = self._transform(rgba, colour_seed)
        image = tf.ensure_shape(image, (*self._size, 3))  # JPEG decoding forgets it, and MODNet needs to know
        if not self._is_labelled:
            return (image,)
        return image, {"alpha": alpha, "trimap": trimap(alpha, *self._trimap_px)}


class ColourTransform:
    """Turns uint8 RGBA into the model's input and alpha: colour operations, then normalisation.

    XLA makes a few loops of all operations up to the first that it cannot compile, where TensorFlow makes many.
    """

    def __init__(self, ops: Iterable[ColourOp], preset: Preset) -> None:
        ops = [*ops, Normalise(preset.scale, preset.mean, preset.std)]
        self._first = list(takewhile(lambda op: op.compiles, ops))
        self._rest = ops[len(self._first) :]
        self._compiled = tf.function(self._start, autograph=False, jit_compile=True)

    def __call__(self, rgba: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return float32 (H, W, 3), normalised, and float32 (H, W, 1) in [0, 1]; `seed` decides."""
        seeds = split(seed, len(self._first) + len(self._rest))
        image, alpha = self._compiled(rgba, [op.draw(drawn) for op, drawn in zip(self._first, seeds, strict=False)])
        for op, drawn in zip(self._rest, seeds[len(self._first) :], strict=True):
            image = op(image, alpha, drawn)
        return image, alpha

    def _start(self, rgba: tf.Tensor, parameters: Sequence[Sequence[tf.Tensor]]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(rgba, tf.float32) / 255
        image, alpha = pixels[..., :3], pixels[..., 3:]
        for op, drawn in zip(self._first, parameters, strict=True):
            image = op.apply(image, alpha, *drawn)
        return image, alpha


@dataclass(frozen=True)
class Normalise(ColourOp):
    """The last operation: scale, mean and deviation of the model's preset, as `imaging.prepare` applies them."""

    scale: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def draw(self, seed: tf.Tensor) -> tuple[()]:
        """Return nothing: this is not random."""
        return ()

    def apply(self, image: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        """Return the model's input."""
        if self.scale == "image-max":
            brightest = tf.reduce_max(image)
            image /= tf.where(brightest > 0, brightest, 1.0)
        return (image - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32)


def _rgba(stores: Sequence[Store], index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a row of one source, uint8 (H, W, 4)."""
    if len(stores) == 1:
        return stores[0](index)
    cutouts, backgrounds = stores
    background_seed, composite_seed = split(seed, 2)
    (background,) = places(background_seed, len(backgrounds.samples))
    return composite(cutouts(index), backgrounds(background), composite_seed)


def _stores(source: Source, size: tuple[int, int], interpolation: str) -> tuple[Store, ...]:
    """Return the source's stores: (photos,), or (cut-outs, backgrounds)."""
    if source.kind != "composite":
        return (Store(source.samples, partial(load_photo, size=size, interpolation=interpolation), (*size, 4)),)
    larger = (round(size[0] * BACKGROUND_SCALE), round(size[1] * BACKGROUND_SCALE))
    cutouts = Store(source.samples, partial(load_cutout, size=size), (*size, 4))
    return cutouts, Store(source.backgrounds, partial(load_background, size=larger), (*larger, 3))


def _keep_what_fits(stores: Sequence[Store], budget_bytes: float) -> list[Store]:
    """Keep what fits, in order; return the rest."""
    rest = []
    for store in stores:
        if store.num_bytes <= budget_bytes:
            budget_bytes -= store.num_bytes
            store.keep()
        else:
            rest.append(store)
    return rest


def _require_mergeable(sources: Sequence[Source]) -> None:
    if not sources or any(not source.samples for source in sources):
        empty = ", ".join(source.name for source in sources if not source.samples)
        raise UsageError(f"Expected photos in every source; found none{f' in {empty}' if empty else ''}.")
    bare = [source.name for source in sources if source.kind == "composite" and not source.backgrounds]
    if bare:
        raise UsageError(f"Expected backgrounds to put the cut-outs of {', '.join(bare)} on; found none.")
    if len({source.kind == "unlabelled" for source in sources}) > 1:
        names = ", ".join(source.name for source in sources if source.kind == "unlabelled")
        raise UsageError(f"Expected sources all with truth or all without; these have none: {names}.")
