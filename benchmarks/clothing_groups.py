"""Photos of groups: people of street photos side by side on other grounds, with the alpha of what they wear.

Street photos show one person who stands, head to shoe, in a street. Whoever has learned from those alone takes faces
and arms where several stand close together, are indoors, or are cut at the waist.
"""

import clothing_scenes as scenes
import numpy as np

COUNTS = 0.3, 0.25, 0.25, 0.2  # how often there are one, two, three, four
HEIGHTS = 0.8, 2.4  # of a whole person, relative to the canvas's: from all of them to heads and shoulders
SHORTER, TALLER = 0.85, 1.1  # than the others
ASIDE = 0.3  # of the room for one, either way
TOP = -0.05, 0.3  # where heads begin, in parts of the canvas's height
TURN = 8  # degrees either way
RECOLOURED, LIGHT = 0.5, (0.75, 1.2)


def group(stock, rng):
    """Return (picture, alpha), uint8 (H, W, 3) and (H, W): one to four of `stock.people` on a ground."""
    size = scenes.CANVASES[rng.integers(len(scenes.CANVASES))]
    size = size[:: rng.choice([-1, 1])]
    picture, alpha = scenes.ground(stock, size, rng), np.zeros(size, np.float32)
    count = 1 + rng.choice(len(COUNTS), p=COUNTS)
    height, top = size[0] * np.exp(rng.uniform(*np.log(HEIGHTS))), size[0] * rng.uniform(*TOP)
    for place in rng.permutation(count):
        person, clothes = stock.people[rng.integers(len(stock.people))]
        middle = size[1] * (place + 0.5 + rng.uniform(-ASIDE, ASIDE)) / count
        begins = top + size[0] * rng.uniform(-0.04, 0.04)
        matrix = _standing(person.shape, height * rng.uniform(SHORTER, TALLER), (middle, begins), rng)
        dressed = scenes.warped(_dressed(person, clothes, rng), size, matrix)
        picture, alpha = scenes.put(picture, alpha, dressed, rng, is_subject=True)
    return picture, np.rint(alpha * 255).astype(np.uint8)


def _standing(shape, height, place, rng):
    """Return the affine matrix (2, 3) of somebody as high as told, the head's middle at `place` (x, y)."""
    scale, side = height / shape[0], rng.choice([-1, 1])
    turn, stretch = np.radians(rng.uniform(-TURN, TURN)), np.exp(rng.uniform(-0.1, 0.1))
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = turned @ np.diag([side * scale * stretch, scale])
    return np.column_stack([matrix, np.array(place) - matrix @ [shape[1] / 2, 0]])


def _dressed(person, clothes, rng):
    """Return uint8 (H, W, 5): a person in another light, at times in clothes of another hue, and what is clothing."""
    light = rng.uniform(*LIGHT) * np.exp(rng.normal(0, 0.04, 3))
    colours = np.clip(person[..., :3] * light, 0, 255)
    if rng.random() < RECOLOURED:
        others = scenes.recoloured(np.dstack([np.rint(colours).astype(np.uint8), clothes]), rng)[..., :3]
        share = clothes[..., None] / np.float32(255)
        colours = colours * (1 - share) + others * share
    worn = np.minimum(clothes, person[..., 3])
    return np.dstack([np.rint(colours).astype(np.uint8), person[..., 3], worn])
