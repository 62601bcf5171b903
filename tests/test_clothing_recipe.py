"""What the clothing weights are trained with (benchmarks/clothing_*.py), at toy size."""

import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import clothing_accelerator
import clothing_coarse
import clothing_feed as feed
import clothing_groups
import clothing_hard
import clothing_scenes
import clothing_wallpapers
from clothing_weights import restore, save

from keras_matting.models import build_model

SIDE = 64


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Write a packed file with one picture of each kind: a red square on grey; of a person, the whole of it is worn."""
    picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
    picture[16:48, 16:48] = 200, 30, 30
    alpha = np.where(picture[..., 1] == 30, 255, 0).astype(np.uint8)
    pairs = dict.fromkeys((*feed.PAIRS, *feed.VALIDATION.values()), picture)
    cutouts = dict.fromkeys(("garment", "laid", "outfit", "bare"), np.dstack([picture, alpha]))
    grounds = dict.fromkeys(("ground-0", "ground-1"), np.full((SIDE, SIDE, 3), 128, np.uint8))
    content = {f"{name}/0": webp(image) for name, image in (pairs | cutouts | grounds).items()}
    content |= {"person/0": webp(np.dstack([picture, alpha]))}
    content |= {f"{name}/0/alpha": webp(alpha) for name in (*pairs, "person")}
    folder = tmp_path_factory.mktemp("packed")
    np.savez(folder / "part-0.npz", **content)
    return folder


def webp(image):
    return cv2.imencode(".webp", image[..., [2, 1, 0, 3][: image.shape[2]]] if image.ndim == 3 else image)[1]


@pytest.mark.parametrize("kind", feed.SHARES)
def test_a_sample_of_every_kind_shows_what_its_alpha_says(packed, kind):
    pairs, stock = feed.load(packed)
    generators = map(np.random.default_rng, range(20))
    samples = np.stack([feed.sample(pairs, stock, SIDE, generator, kind) for generator in generators])
    assert samples.shape == (20, SIDE, SIDE, 4) and samples.dtype == np.uint8
    assert (samples[..., 3] == 0).all() if kind == "nothing" else (samples[..., 3] > 127).any()


def test_makers_fill_the_pools_that_trainers_draw_from(packed, tmp_path):
    pool = feed.Pool(tmp_path, SIDE, 8)
    makers = feed.start_makers(packed, [pool], 1)
    try:
        batch = pool.draw(4, np.random.default_rng(1))
    finally:
        for maker in makers:
            maker.terminate()
    assert batch.shape == (4, SIDE, SIDE, 4) and batch.any(axis=(1, 2, 3)).all()


def test_models_of_smaller_sizes_share_a_pool(packed, tmp_path):
    pool = feed.Pool(tmp_path, SIDE, 4)
    for maker in feed.start_makers(packed, [pool], 1, shares={"simple": 1.0}, is_endless=False):
        maker.join()
    clock = clothing_accelerator.Clock(1, 1e-3, tmp_path / "minutes")
    samples, sources = next(clothing_accelerator.drawn({SIDE: pool}, [str(SIDE)], 2, clock, shrink_to=SIDE // 2))
    assert samples.shape == (2, SIDE // 2, SIDE // 2, 4) and samples.dtype == np.uint8 and sources.shape == (2,)


def test_makers_that_are_to_fill_the_pools_once_end(packed, tmp_path):
    pool = feed.Pool(tmp_path, SIDE, 5)
    makers = feed.start_makers(packed, [pool], 2, shares={"nothing": 1.0}, is_endless=False)
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0, 0]
    assert pool.flags().all() and not pool.samples()[..., 3].any()


def test_of_exact_samples_only_those_that_a_model_is_worst_at_are_drawn_any_more(packed, tmp_path):
    pool = feed.Pool(tmp_path, SIDE, 8)
    samples, flags = pool.samples("w+"), pool.flags("w+")
    samples[:] = 255
    samples[:, 0, 0, 0] = range(8)  # the sample's number
    street, scene = (1 + list(feed.SHARES).index(kind) for kind in ("street", "scene"))
    flags[:] = [scene] * 6 + [street] * 2
    samples.flush()
    flags.flush()
    missing = {1: 30, 4: 64}  # rows of the matte

    def matte(rgb):
        rows = np.where(np.arange(SIDE) < missing.get(int(rgb[0, 0, 0]), 0), 0, 255)
        return np.broadcast_to(rows[:, None], (SIDE, SIDE)).astype(np.uint8)

    clothing_hard.keep_hardest(pool, matte, share=2 / 6)
    drawn = pool.draw(4, np.random.default_rng(1))
    assert sorted(drawn[:, 0, 0, 0]) == [1, 4, 6, 7]
    with pytest.raises(ValueError, match=r"at least 5 samples .* 4 of 8 not left out"):
        pool.draw(5, np.random.default_rng(1))


def test_a_photo_with_nothing_to_take_is_missed_when_something_is_taken():
    sample = np.zeros((8, 8, 4), np.uint8)
    assert clothing_hard.missed(sample, lambda rgb: np.zeros((8, 8), np.uint8)) == 0
    assert clothing_hard.missed(sample, lambda rgb: np.full((8, 8), 255, np.uint8)) > 0.9


def test_of_wallpapers_that_look_alike_one_is_kept(tmp_path):
    black, white = (np.full((400, 1600, 3), grey, np.uint8) for grey in (0, 255))
    assert clothing_wallpapers.keep([black, white, black + 3], tmp_path) == 2
    kept = [cv2.imread(str(path)) for path in sorted(tmp_path.iterdir())]
    assert [picture.shape for picture in kept] == [(200, 800, 3)] * 2
    assert kept[0].max() < 10 and kept[1].min() > 245


def test_pictures_of_somebody_and_icons_are_no_wallpapers(tmp_path):
    noise = np.random.default_rng(1).integers(256, size=(300, 400, 3), dtype=np.uint8)
    for name in ("deep/wall.png", f"{clothing_wallpapers.WORN[0]}.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), noise)
    cv2.imwrite(str(tmp_path / "icon.png"), noise[:200])
    (found,) = clothing_wallpapers.wallpapers(tmp_path)
    np.testing.assert_array_equal(found, noise)


@pytest.mark.parametrize("seed", range(5))
def test_a_portrait_shows_the_upper_end_of_the_clothes_and_what_is_above(seed):
    alpha = np.zeros((400, 200), np.uint8)
    alpha[100:, 60:140] = 255
    picture = np.dstack([alpha] * 3)
    rgb, matte = clothing_scenes.portrait(picture, alpha, np.random.default_rng(seed))
    assert 70 <= matte.shape[0] <= 180 and rgb.shape[:2] == matte.shape
    assert not matte[0].any() and matte[-1].any()
    np.testing.assert_array_equal(rgb[..., 0], matte)


@pytest.mark.parametrize("seed", range(12))
def test_of_a_group_what_they_wear_is_taken_and_they_are_not(seed, monkeypatch):
    monkeypatch.setattr(clothing_groups, "RECOLOURED", 0)
    person, worn = np.zeros((300, 80, 4), np.uint8), np.zeros((300, 80), np.uint8)
    person[:] = 30, 30, 220, 255  # blue skin
    person[100:] = 220, 30, 30, 255
    worn[100:] = 255
    stock = clothing_scenes.Stock((), ([np.full((500, 500, 3), 128, np.uint8)],), people=[(person, worn)])
    picture, alpha = clothing_groups.group(stock, np.random.default_rng(seed))
    red, _, blue = (picture[..., channel].astype(int) for channel in range(3))
    assert (alpha[red > blue + 90] > 90).all()
    assert (alpha[blue > red + 90] < 90).all() and (blue > red + 90).any()


def test_a_varied_ground_is_turned_and_recoloured_at_times():
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[:, :45] = 200, 40, 40
    varied = [clothing_scenes.varied(picture, np.random.default_rng(seed)) for seed in range(20)]
    assert {ground.shape for ground in varied} == {(60, 90, 3), (90, 60, 3)}
    assert any(np.array_equal(ground, picture) for ground in varied)
    assert any((ground.reshape(-1, 3).argmax(axis=1) == 2).any() for ground in varied)  # blue


def test_weights_that_travel_arrive_as_half_precision_kernels_and_whole_statistics(tmp_path):
    network, other = (build_model("modnet", 64) for _ in range(2))
    save(network, tmp_path / "weights.npz")
    assert restore(other, tmp_path / "weights.npz") == len(network.weights)
    for sent, come in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(come, sent, rtol=0 if sent.ndim == 1 else 1e-3, atol=0 if sent.ndim == 1 else 1e-7)


def test_weights_that_are_chosen_leave_the_others_alone(tmp_path):
    network = build_model("modnet", 64)
    save(network, tmp_path / "weights.npz", "backbone")
    assert 0 < restore(build_model("modnet", 64), tmp_path / "weights.npz") < len(network.weights)


def train(packed, folder, monkeypatch, model, *options):
    """Train for a moment on pools that are made meanwhile; what it leaves is in the folder "run"."""
    makers = feed.start_makers(packed, [feed.Pool(folder, SIDE, 16)], 1)
    words = ["--minutes", "0.01", "--sizes", SIDE, "--count", 16, "--batch", 2, "--steps", 2, "--precision", "float32"]
    words = ["clothing_accelerator", model, packed, folder, folder / "run", *words, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    try:
        clothing_accelerator.main()
    finally:
        for maker in makers:
            maker.terminate()


@pytest.mark.long
@pytest.mark.parametrize("model", ["modnet", "u2netp"])
def test_training_by_the_clock_leaves_weights_and_a_history(packed, tmp_path, monkeypatch, model):
    train(packed, tmp_path, monkeypatch, model)
    header = (tmp_path / "run" / "history.csv").read_text(encoding="utf-8").splitlines()[0]
    assert {f"val_{source}_miou" for source in feed.VALIDATION} <= set(header.split(","))
    assert restore(build_model(model, SIDE), tmp_path / "run" / "weights.npz")


@pytest.mark.long
def test_what_is_tuned_further_keeps_its_statistics_and_is_the_moving_average(packed, tmp_path, monkeypatch):
    save(build_model("modnet", SIDE), tmp_path / "start.npz")
    options = ["--start", tmp_path / "start.npz", "--steps", 4, "--keep-statistics"]
    train(packed, tmp_path, monkeypatch, "modnet", *options, "--rate", 3e-3, "--ema", 1 - 1e-7)
    with np.load(tmp_path / "start.npz") as start, np.load(tmp_path / "run" / "weights.npz") as end:
        whole = [name for name in start.files if start[name].ndim == 1]  # the others travel in half precision
        moved = {name: np.abs(start[name] - end[name]).max() for name in whole if (start[name] != end[name]).any()}
    assert moved and not [name for name in moved if "/moving_" in name]
    # The average begins with the first step, 1e-3 for each variable while training warms up, and then stands still.
    assert max(moved.values()) < 1.5e-3


@pytest.mark.long
@pytest.mark.parametrize("model", ["modnet", "u2netp"])
def test_where_only_the_coarse_part_learns_the_rest_stays(packed, tmp_path, monkeypatch, model):
    network = build_model(model, SIDE)
    save(network, tmp_path / "start.npz")
    pool = feed.Pool(tmp_path, SIDE, 16)
    for maker in feed.start_makers(packed, [pool], 1, shares={"simple": 1.0}, is_endless=False):
        maker.join()
    words = [model, tmp_path, tmp_path / "run", "--start", tmp_path / "start.npz", "--size", SIDE, "--count", 16]
    words += ["--minutes", "0.001", "--batch", 2, "--mirror"]
    monkeypatch.setattr(sys, "argv", ["clothing_coarse", *map(str, words)])
    monkeypatch.setattr(clothing_coarse, "STEPS", 2)
    policy = keras.config.dtype_policy()
    try:
        clothing_coarse.main()
    finally:
        keras.config.set_dtype_policy(policy)
    before = dict(np.load(tmp_path / "start.npz"))
    with np.load(tmp_path / "run/weights.npz") as after:
        changed = {name for name in after.files if not np.array_equal(after[name], before[name])}
    assert changed and not any(name.startswith(clothing_coarse.FROZEN[model]) for name in changed)
