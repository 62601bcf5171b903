from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_matting.data.base import Sample, Source
from keras_matting.data.pipeline.batches import TrainingData, validation_batches
from keras_matting.data.pipeline.trimap import trimap
from keras_matting.errors import ImageError, UsageError
from keras_matting.model_folder import Preset
from keras_matting.photos import imaging
from keras_matting.photos.files import Photo, decode

PRESET = Preset(name="p", architecture="u2netp", input_size=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PLAIN = replace(PRESET, mean=(0, 0, 0), std=(1, 1, 1))
# What decodes nothing into memory, and so reads the files at every draw.
NOTHING = {"cache_gb": 0}


def save(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def labelled(folder, count, name="photos", size=(36, 28)):
    """Photos of one grey each, which tells them apart, with masks of two halves."""
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 255
    samples = []
    for number in range(count):
        grey = np.full((*size, 3), 10 * number, np.uint8)
        image = save(grey, folder / f"{name}{number}.png")
        samples.append(Sample(f"{name}{number}", image, save(mask, folder / f"{name}{number}_mask.png")))
    return Source(name, "labelled", tuple(samples))


def noisy_photo(seed=0, size=(47, 40)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 1)


def composites(folder, background=(0, 0, 255)):
    """A red disc with a soft edge, green where it is see-through, on plain backgrounds."""
    rows, columns = np.mgrid[:60, :40]
    alpha = np.rint(np.clip((15 - np.hypot(rows - 30, columns - 20)) / 6, 0, 1) * 255).astype(np.uint8)
    colours = np.where(alpha[..., None] > 0, (255, 0, 0), (0, 255, 0)).astype(np.uint8)
    cutout = save(np.dstack([colours, alpha]), folder / "cutout.png")
    ground = save(np.full((50, 50, 3), background, np.uint8), folder / "ground.png")
    return Source("discs", "composite", (Sample("disc", cutout),), (Sample("ground", ground),))


def data_of(*sources, preset=PLAIN, **options):
    return TrainingData(list(sources), preset, **{"batch_size": 2} | options)


def batches(data, count, first_epoch=0):
    return list(data.dataset(first_epoch).take(count).as_numpy_iterator())


def greys(image_batch):
    """Return what tells the photos of `labelled` apart: their number."""
    return [round(float(image[16, 16, 0]) * 25.5) for image in image_batch]


def test_batches_have_the_shapes_types_and_ranges_that_trainers_take(tmp_path):
    ((image, targets),) = batches(data_of(labelled(tmp_path, 3), preset=PRESET, trimap_px=(5, 3)), 1)
    assert (image.shape, targets["alpha"].shape, targets["trimap"].shape) == ((2, 32, 32, 3), *[(2, 32, 32, 1)] * 2)
    assert all(array.dtype == np.float32 for array in (image, *targets.values()))
    assert set(np.unique(targets["trimap"])) == {0, 0.5, 1}
    np.testing.assert_array_equal(targets["trimap"], trimap(targets["alpha"], 5, 3))


@pytest.mark.parametrize(("interpolation", "scale"), [("linear", "255"), ("linear", "image-max"), ("area", "255")])
def test_image_is_what_the_model_sees_when_it_mattes(tmp_path, interpolation, scale):
    preset = replace(PRESET, interpolation=interpolation, scale=scale)
    photos = [noisy_photo(size=size) // 2 for size in ((47, 40), (20, 24))]
    samples = [Sample(str(number), save(rgb, tmp_path / f"{number}.png")) for number, rgb in enumerate(photos)]
    source = Source("s", "unlabelled", tuple(samples))
    ((images,),) = validation_batches([source], preset, batch_size=2).as_numpy_iterator()
    step = 1.6 / 255 / min(preset.std) * (2 if scale == "image-max" else 1)
    np.testing.assert_allclose(images, [imaging.prepare(Photo(rgb), preset) for rgb in photos], atol=step)


def test_jpegs_are_decoded_and_turned_upright_as_photos_are_when_matted(tmp_path):
    samples, expected = [], []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(noisy_photo(orientation), tmp_path / f"{orientation}.jpg", exif=exif, quality=95)
        upright = decode(path.read_bytes())
        mask = save(upright.rgb[..., 0], tmp_path / f"{orientation}.png")
        samples.append(Sample(str(orientation), path, mask, orientation))
        expected.append(imaging.prepare(upright, PLAIN))
    source = Source("s", "labelled", tuple(samples))
    ((images, targets),) = validation_batches([source], PLAIN, batch_size=8).as_numpy_iterator()
    np.testing.assert_allclose(images, expected, atol=1.6 / 255)
    for image, alpha in zip(images, targets["alpha"], strict=True):
        assert np.corrcoef(alpha.ravel(), image[..., 0].ravel())[0, 1] > 0.95


def test_alpha_is_resized_softly(tmp_path):
    ((_, targets),) = validation_batches([labelled(tmp_path, 1, size=(50, 45))], PLAIN, batch_size=1)
    values = np.unique(targets["alpha"])
    assert values.min() == 0
    assert values.max() == 1
    assert ((values > 0.05) & (values < 0.95)).any()


def test_every_sample_comes_once_before_any_comes_again_and_in_another_order(tmp_path):
    data = data_of(labelled(tmp_path, 6), batch_size=3)
    assert data.steps_per_epoch == 2
    drawn = np.concatenate([greys(image) for image, _ in batches(data, 8)]).reshape(4, 6)
    assert all(sorted(walk) == list(range(6)) for walk in drawn)
    assert len({tuple(walk) for walk in drawn}) > 1


@pytest.mark.parametrize("cache", [{}, NOTHING])
def test_names_are_those_of_the_batch(tmp_path, cache):
    data = data_of(labelled(tmp_path, 5), labelled(tmp_path, 3, "more"), batch_size=3, **cache)
    drawn = batches(data, 2 * data.steps_per_epoch)
    for number, (image, _) in enumerate(drawn):
        names = data.names(*divmod(number, data.steps_per_epoch))
        assert [int(name[-1]) for name in names] == greys(image)


def test_sources_are_drawn_by_weight_and_not_by_size(tmp_path):
    large, small = labelled(tmp_path, 9, "a"), replace(labelled(tmp_path, 2, "b"), weight=3.0)
    data = data_of(large, small, batch_size=8, steps_per_epoch=5)
    names = [name for step in range(5) for name in data.names(0, step)]
    assert sum(name.startswith("a") for name in names) == 10
    assert [names.count(f"b{number}") for number in range(2)] == [15, 15]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.1, 7.0, 2.3)])
def test_every_source_has_its_share_at_any_time(tmp_path, weights):
    sources = [replace(labelled(tmp_path, 2, name), weight=weight) for name, weight in zip("abc", weights, strict=True)]
    data = data_of(*sources, batch_size=40, steps_per_epoch=2)
    names = [name[0] for step in range(3) for name in data.names(*divmod(step, 2))]
    for name, weight in zip("abc", weights, strict=True):
        drawn = np.cumsum([drawn == name for drawn in names])
        assert np.abs(drawn - weight / sum(weights) * np.arange(1, 121)).max() <= 2


def test_a_resumed_run_sees_the_very_batches_it_would_have_seen(tmp_path):
    sources = [labelled(tmp_path, 3), replace(composites(tmp_path), weight=0.5)]
    options = {"augment": "original", "batch_size": 2, "seed": 5, "steps_per_epoch": 2}
    whole = batches(data_of(*sources, **options), 6)
    resumed = batches(data_of(*sources, **options), 2, first_epoch=2)
    tf.nest.map_structure(np.testing.assert_array_equal, resumed, whole[4:])
    assert not np.array_equal(whole[0][0], whole[2][0])


def test_another_seed_is_another_order_and_another_augmentation(tmp_path):
    source = labelled(tmp_path, 8)
    first, second = (data_of(source, augment="original", seed=seed) for seed in (1, 2))
    assert first.names(0, 0) + first.names(0, 1) != second.names(0, 0) + second.names(0, 1)
    one = Source("one", "labelled", source.samples[3:4])
    images = [batches(data_of(one, augment="original", seed=seed), 1)[0][0] for seed in (1, 2)]
    assert not np.array_equal(*images)


def test_cut_outs_keep_their_true_alpha_and_no_hidden_colour(tmp_path):
    image, targets = batches(data_of(composites(tmp_path), batch_size=8), 1)[0]
    alpha = targets["alpha"]
    assert (alpha.max(axis=(1, 2, 3)) > 0.9).all()
    assert ((alpha > 0.1) & (alpha < 0.9)).any()
    np.testing.assert_allclose(image[..., :1], alpha, atol=2.5 / 255)  # red is the disc
    assert image[..., 1].max() <= 1 / 255  # green is hidden behind transparent pixels
    light = image[..., 2:] + alpha  # blue is the ground, shadows apart
    assert light.min() > 0.4
    assert light.max() < 1 + 3 / 255
    assert light.min() < 0.95


def test_cut_outs_stand_elsewhere_at_another_size_each_time(tmp_path):
    (_, targets) = batches(data_of(composites(tmp_path), batch_size=8), 1)[0]
    weights = targets["alpha"][..., 0]
    areas = weights.sum(axis=(1, 2))
    centres = (weights * np.arange(32)).sum(axis=(1, 2)) / areas
    assert np.ptp(areas) > 0.3 * areas.mean()
    assert np.ptp(centres) > 3


def test_validation_is_every_sample_once_in_order_the_same_each_time(tmp_path):
    sources = [labelled(tmp_path, 5), composites(tmp_path)]
    dataset = validation_batches(sources, PLAIN, batch_size=4)
    first, second = list(dataset.as_numpy_iterator()), list(dataset.as_numpy_iterator())
    assert [len(image) for image, _ in first] == [4, 2]
    assert greys(np.concatenate([image for image, _ in first]))[:5] == list(range(5))
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def test_unlabelled_photos_come_without_targets_and_do_not_mix(tmp_path):
    photos = labelled(tmp_path, 2)
    bare = Source("bare", "unlabelled", tuple(replace(sample, alpha=None) for sample in photos.samples))
    (batch,) = batches(data_of(bare, augment="original"), 1)
    assert [array.shape for array in batch] == [(2, 32, 32, 3)]
    with pytest.raises(UsageError, match="all with truth or all without; these have none: bare"):
        data_of(photos, bare)


def test_a_batch_may_be_larger_than_the_data(tmp_path):
    data = data_of(labelled(tmp_path, 3), batch_size=7)
    assert data.steps_per_epoch == 1
    assert sorted(data.names(0, 0)[:6]) == sorted(2 * [f"photos{number}" for number in range(3)])
    assert len(batches(data, 1)[0][0]) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size as a whole number above 0; received 0"),
        ({"steps_per_epoch": -1}, "steps_per_epoch as a whole number above 0"),
        ({"augment": "bright"}, "augmentation out of none, original"),
        ({"trimap_px": (0, 3)}, "whole numbers of pixels"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        data_of(labelled(tmp_path, 2), **options)


def test_sources_without_photos_or_backgrounds_are_refused(tmp_path):
    with pytest.raises(UsageError, match="photos in every source; found none in empty"):
        data_of(Source("empty", "labelled", ()))
    with pytest.raises(UsageError, match="backgrounds to put the cut-outs of discs on"):
        data_of(replace(composites(tmp_path), backgrounds=()))


def truncated(path):
    path.write_bytes(path.read_bytes()[:60])


def of_another_size(path):
    save(np.zeros((5, 6), np.uint8), path)


@pytest.mark.parametrize(
    ("damage", "file"),
    [(truncated, "photos3.png"), (Path.unlink, "photos3.png"), (of_another_size, "photos3_mask.png")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, damage, file):
    source = labelled(tmp_path, 5)
    late = data_of(source, **NOTHING)
    damage(tmp_path / file)
    with pytest.raises(ImageError, match=file):
        data_of(source)
    with pytest.raises(ImageError, match=file):
        validation_batches([source], PLAIN, batch_size=2, **NOTHING)
    with pytest.raises(ImageError, match=file), late.naming_unreadable():
        batches(late, 3)


def test_errors_that_no_file_caused_stay_what_they_are(tmp_path):
    data = data_of(labelled(tmp_path, 2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="ours"), data.naming_unreadable():
        raise tf.errors.InvalidArgumentError(None, None, "ours")


def fill_memory():
    tf.zeros((1 << 50,))  # beyond any processor's addresses


def fail_in_xla():
    message = (
        "Graph execution error:\n\nDetected at node step\nOut of memory while trying to allocate 9 bytes.\n\t[[step]]"
    )
    raise tf.errors.ResourceExhaustedError(None, None, message)


@pytest.mark.parametrize(
    ("fail", "told"),
    [(fill_memory, "OOM when allocating tensor"), (fail_in_xla, "Out of memory while trying to allocate 9 bytes")],
)
def test_a_batch_beyond_memory_is_told_and_no_file_is_read_again(tmp_path, fail, told):
    source = labelled(tmp_path, 5)
    data = data_of(source, **NOTHING)
    truncated(tmp_path / "photos3.png")  # to be told if it were read
    message = f"a batch to fit into memory; received: {told}[^.]*\\. Lower --batch or --size"
    with pytest.raises(UsageError, match=message), data.naming_unreadable():
        fail()


def test_a_resource_other_than_memory_is_not_taken_for_it(tmp_path):
    data = data_of(labelled(tmp_path, 2))
    full = tf.errors.ResourceExhaustedError(None, None, "/memory/allocated/OOM/events; No space left on device")
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"), data.naming_unreadable():
        raise full


def test_photos_from_memory_and_from_disk_are_the_same(tmp_path):
    source = labelled(tmp_path, 4)
    kept, read = (batches(data_of(source, **cache), 2) for cache in ({}, NOTHING))
    tf.nest.map_structure(np.testing.assert_array_equal, kept, read)
