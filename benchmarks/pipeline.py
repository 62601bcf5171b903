"""Print, from one run, how fast the training pipelines are beside a training step and the original's data loader.

usage: python benchmarks/pipeline.py FOLDER [--photos N] [--rounds N] [--sizes 320,512]

FOLDER has image/ and mask/. Ours: augmentations out of memory, and "original" also with every photo decoded anew.
The original's: a PyTorch DataLoader of two workers that decodes with Pillow each time, does what torchvision's Resize,
RandomCrop, flips, RandomRotation, ColorJitter and RandomInvert do to Pillow images, and makes the trimap with scipy.
torchvision itself is not needed: its operations are written here by the same calls of Pillow and NumPy that its Pillow
backend makes. All take turns, in rounds; the figures are medians. The step is Keras `fit` of U2NetP on random data,
measured once.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BATCH_SIZE = 8
WORKERS = 2
WARM_UP_BATCHES, TIMED_BATCHES = 6, 16
STEP_BATCH_SIZE = 4


class OriginalDataset:
    """What the clothing project's script does to a photo and its mask, one at a time."""

    def __init__(self, samples, size):
        self.samples, self.size, self.load_size = samples, size, round(size * 544 / 512)

    def __len__(self):
        return len(self.samples) * 1000  # so that no round ends

    def __getitem__(self, index):
        import torch

        sample = self.samples[index % len(self.samples)]
        pair = [Image.open(sample.image).convert("RGB"), Image.open(sample.alpha).convert("L")]
        photo, mask = self.moved(pair)
        photo = random_invert(colour_jitter(photo))
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous().float().div(255).sub(0.5).div(0.5)
        alpha = np.asarray(mask) / np.float32(255)
        return image, torch.from_numpy(alpha)[None], torch.from_numpy(scipy_trimap(alpha))[None]

    def moved(self, pair):
        pair = [image.resize((self.load_size, self.load_size), Image.BILINEAR) for image in pair]
        left, top = (random.randint(0, self.load_size - self.size) for _ in range(2))
        pair = [image.crop((left, top, left + self.size, top + self.size)) for image in pair]
        for flip in (Image.FLIP_LEFT_RIGHT, Image.FLIP_TOP_BOTTOM):
            if random.random() < 0.5:
                pair = [image.transpose(flip) for image in pair]
        degrees = random.uniform(0, 180)
        return [image.rotate(degrees) for image in pair]


def colour_jitter(photo):
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
    random.shuffle(enhancers)
    for enhancer in enhancers:
        photo = enhancer(photo).enhance(random.uniform(0.5, 1.5)) if enhancer else turned_hue(photo)
    return photo


def turned_hue(photo):
    hue, saturation, value = photo.convert("HSV").split()
    turn = np.int32(random.uniform(-0.3, 0.3) * 255).astype(np.uint8)
    hue = Image.fromarray(np.asarray(hue) + turn)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def random_invert(photo):
    return ImageOps.invert(photo) if random.random() < 0.5 else photo


def scipy_trimap(alpha):
    from scipy.ndimage import grey_dilation, grey_erosion

    foreground, possible = (alpha >= 0.9).astype(np.float32), (alpha > 0).astype(np.float32)
    unknown = grey_dilation(possible, size=(25, 25)) != grey_erosion(foreground, size=(3, 3))
    return np.where(unknown, np.float32(0.5), foreground)


def original_batches(samples, size):
    import torch

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        OriginalDataset(samples, size),
        BATCH_SIZE,
        shuffle=True,
        num_workers=WORKERS,
        multiprocessing_context="spawn",  # TensorFlow's threads do not survive a fork
        persistent_workers=True,
    )
    return lambda: iter(loader)


def our_batches(source, size, **options):
    from keras_matting.data.pipeline.batches import TrainingData
    from keras_matting.model_folder import Preset

    preset = Preset("benchmark", "u2netp", (size, size), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    dataset = TrainingData([source], preset, batch_size=BATCH_SIZE, **options).dataset()
    return lambda: iter(dataset)


def images_per_s(batches):
    iterator = batches()
    for _ in range(WARM_UP_BATCHES):
        next(iterator)
    start = time.perf_counter()
    for _ in range(TIMED_BATCHES):
        next(iterator)
    return TIMED_BATCHES * BATCH_SIZE / (time.perf_counter() - start)


def training_images_per_s(size):
    import keras

    from keras_matting.models import build_model
    from keras_matting.training.trainers import U2NetTrainer

    trainer = U2NetTrainer(build_model("u2netp", size))
    trainer.compile(keras.optimizers.Adam(1e-3))
    shape = (STEP_BATCH_SIZE, size, size)
    image, alpha = np.random.rand(*shape, 3).astype(np.float32), np.random.rand(*shape, 1).astype(np.float32)

    def fit():
        start = time.perf_counter()
        trainer.fit(image, {"alpha": alpha, "trimap": alpha}, batch_size=STEP_BATCH_SIZE, verbose=0)
        return len(image) / (time.perf_counter() - start)

    fit()  # traces
    return fit()


def contenders(source, sizes):
    table = {}
    for size in sizes:
        for name in ("none", "original", "custom"):
            batches = our_batches(source, size, augment=name)
            table[f"ours, {name}", size] = lambda batches=batches: images_per_s(batches)
        anew = our_batches(source, size, augment="original", cache_gb=0)
        table["ours, original, decoded anew", size] = lambda anew=anew: images_per_s(anew)
        theirs = original_batches(source.samples, size)
        table["PyTorch, original", size] = lambda theirs=theirs: images_per_s(theirs)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="320,512")
    arguments = parser.parse_args()

    from dataclasses import replace

    from keras_matting.data.sources import read_source

    source = read_source(str(arguments.folder))
    source = replace(source, samples=source.samples[: arguments.photos])
    sizes = [int(size) for size in arguments.sizes.split(",")]
    table = contenders(source, sizes)
    rounds = [{name: measure() for name, measure in table.items()} for _ in range(arguments.rounds)]
    print("| images/s | " + " | ".join(map(str, sizes)) + " |\n|---|" + "---:|" * len(sizes))
    for name in dict.fromkeys(name for name, _ in table):
        medians = [np.median([measured[name, size] for measured in rounds]) for size in sizes]
        print(f"| {name} | " + " | ".join(f"{median:.1f}" for median in medians) + " |")
    print()
    for size in sizes:
        for name in ("ours, original", "ours, original, decoded anew"):
            ratios = [measured[name, size] / measured["PyTorch, original", size] for measured in rounds]
            print(f"{size}: {name} is {np.median(ratios):.2f} x PyTorch ({min(ratios):.2f} to {max(ratios):.2f}).")
    for size in sizes:
        print(f"{size}: a U2NetP training step takes {training_images_per_s(size):.2f} images/s.", flush=True)


if __name__ == "__main__":
    main()
