"""Image files -> uint8 tensors of one size, in graph mode: decode, turn upright, stretch.

The files are as `Sample` promises, so TensorFlow's own decoders do. A damaged file, or a mask that does not fit, fails
with one of TensorFlow's errors; `read_sample` of the same file says what is wrong with it.
"""

import tensorflow as tf


def load_photo(
    image_path: tf.Tensor, alpha_path: tf.Tensor, orientation: tf.Tensor, size: tuple[int, int], interpolation: str
) -> tf.Tensor:
    """Return a photo and its alpha, uint8 (height, width, 4), stretched to `size`.

    `alpha_path` is empty where there is no truth: alpha is then 255 everywhere. `interpolation`: the preset's.
    """
    image = _decode_upright(image_path, orientation)
    alpha = tf.cond(
        tf.strings.length(alpha_path) > 0,
        lambda: tf.io.decode_png(tf.io.read_file(alpha_path), 1),
        lambda: 255 * tf.ones_like(image[..., :1]),
    )
    tf.debugging.assert_equal(tf.shape(alpha)[:2], tf.shape(image)[:2])
    alpha = tf.image.resize(alpha, size, antialias=True)
    return tf.concat([_stretch(image, size, interpolation), _to_uint8(alpha)], axis=-1)


def load_cutout(
    image_path: tf.Tensor, alpha_path: tf.Tensor, orientation: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Return an RGBA cut-out, uint8 (height, width, 4), scaled to fit into `size`, centred; colours premultiplied.

    Resizing straight colours would bleed into the edges what hides behind transparent pixels.
    """
    rgba = tf.cast(tf.io.decode_png(tf.io.read_file(image_path), 4), tf.float32)
    premultiplied = tf.concat([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3:]], axis=-1)
    fitted = tf.image.resize(premultiplied, size, preserve_aspect_ratio=True, antialias=True)
    return _to_uint8(tf.image.resize_with_crop_or_pad(fitted, *size))


def load_background(
    image_path: tf.Tensor, alpha_path: tf.Tensor, orientation: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Return a background, uint8 (height, width, 3), stretched to `size`."""
    image = _decode_upright(image_path, orientation)
    return _to_uint8(tf.image.resize(image, size, antialias=True))


def _decode_upright(path: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Decode a photo and apply its EXIF orientation (1 to 8), as `photos.files` does."""
    # This reads PNG too. The default transform is a faster one, a few steps of 8 bits away from OpenCV's.
    image = tf.io.decode_jpeg(tf.io.read_file(path), 3, dct_method="INTEGER_ACCURATE")
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    down = tf.where(tf.reduce_any(orientation == (3, 4, 7, 8)), -1, 1)
    across = tf.where(tf.reduce_any(orientation == (2, 3, 6, 7)), -1, 1)
    return tf.ensure_shape(image[::down, ::across], (None, None, 3))


def _stretch(image: tf.Tensor, size: tuple[int, int], interpolation: str) -> tf.Tensor:
    """Resize as `imaging.prepare` does, by OpenCV's INTER_LINEAR or INTER_AREA, within a step of 8 bits.

    Where one side grows and the other shrinks, OpenCV's is no average over areas, and this is.
    """
    return _to_uint8(tf.image.resize(image, size, "area" if interpolation == "area" else "bilinear"))


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)
