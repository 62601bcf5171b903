"""Patterns drawn at random, as what clothing lies on and as what it is printed with: no two alike, and no end of them.

The collections that training has hold a few hundred grounds and ninety shapes of garments, which a model comes to know.
A dress on chequers of its own colours is none of them. Pictures are uint8 RGB (H, W, 3); `rng`: a NumPy generator.
"""

import cv2
import numpy as np

CELLS = 6, 120  # of facets
FEATURE = 0.02, 0.3  # of the longer side: the width of a tile, stripe, dot
LEAVES = 30, 250
WARPED = 0.5  # how often a pattern is seen from aside
LIT = 0.5  # how often light falls off across it
RELIEF = 25  # grey levels, at most, of the grain on it


def pattern(size, rng):
    """Return a pattern of any kind, (*size, 3): facets, tiles, stripes, plaid, dots, leaves or marble."""
    draw = KINDS[rng.integers(len(KINDS))]
    around = tuple(round(1.5 * side) for side in size)  # a margin for the view from aside
    picture = draw(around, palette(rng), rng).astype(np.float32)
    picture = _seen_from_aside(picture, size, rng) if rng.random() < WARPED else picture[: size[0], : size[1]]
    if rng.random() < LIT:
        picture = picture * _noise(size, 2, rng, 0.5, 1.3)[..., None]
    picture = picture + rng.normal(0, rng.uniform(0, RELIEF) / 3, (*size, 1)) * (rng.random() < 0.5)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 2.5))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def printed(cutout, picture, rng):
    """Return a cut-out, uint8 (H, W, 4), printed with a picture of any size: folds and shade stay, colours go."""
    rgb = cutout[..., :3].astype(np.float32)
    shade = rgb.mean(axis=-1, keepdims=True)
    shade /= max(float(np.average(shade[..., 0], weights=cutout[..., 3] + 1e-3)), 30.0)
    print_ = cv2.resize(picture, cutout.shape[1::-1], interpolation=cv2.INTER_AREA) * np.clip(shade, 0.2, 1.6)
    share = np.float32(rng.uniform(0.6, 1.0))
    mixed = np.clip(share * print_ + (1 - share) * rgb, 0, 255)
    return np.dstack([np.rint(mixed).astype(np.uint8), cutout[..., 3]])


def palette(rng):
    """Return 2 to 6 colours, float32 (N, 3) in [0, 255]: of one hue, of all, or grey with one that is not."""
    count = rng.integers(2, 7)
    hues = rng.uniform(0, 180) + rng.normal(0, rng.choice([8, 30, 90]), count)
    saturation = rng.uniform(0, 255, count) if rng.random() < 0.6 else rng.uniform(0, 60, count)
    value = 255 * rng.beta(1.2, 0.9, count)
    hsv = np.stack([hues % 180, saturation, value], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(np.float32)


def _facets(size, colours, rng):
    """Cells about random points, each with a slope of colour of its own, as crystals and cut glass have."""
    count = rng.integers(*CELLS)
    seeds = np.full(size, 255, np.uint8)
    seeds[rng.integers(size[0], size=count), rng.integers(size[1], size=count)] = 0
    distance, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    ends = [_any(colours, rng, cell.max() + 1) for _ in range(2)]
    slope = rng.normal(0, 1.5, (cell.max() + 1, 2)).astype(np.float32)
    down, across = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j].astype(np.float32)
    mix = 0.5 + 0.5 * np.sin(3 * (slope[cell, 0] * down + slope[cell, 1] * across) + cell)
    picture = _mixed(ends[0][cell], ends[1][cell], mix)
    if rng.random() < 0.5:
        picture *= (1 - rng.uniform(0.2, 0.8) * distance / max(distance.max(), 1))[..., None]
    return picture


def _tiles(size, colours, rng):
    """Chequers, tiles and bricks, at times with joints."""
    step = np.maximum(4, _feature(size, rng) * rng.uniform(0.6, 1.7, 2))
    row = np.arange(size[0]) / step[0]
    shift = rng.choice([0, 0.5]) * np.floor(row)
    column = np.arange(size[1])[None] / step[1] + shift[:, None]
    number = np.floor(row)[:, None] + np.floor(column)
    if rng.random() < 0.6:
        picture = colours[number.astype(int) % min(2, len(colours))]
    else:
        kinds = rng.integers(len(colours), size=(64, 64))
        picture = colours[kinds[np.floor(row).astype(int)[:, None] % 64, np.floor(column).astype(int) % 64]]
    joint = rng.uniform(0, 0.12) * (rng.random() < 0.5)
    is_joint = (row % 1 < joint)[:, None] | (column % 1 < joint)
    return np.where(is_joint[..., None], colours[-1], picture)


def _stripes(size, colours, rng):
    """Bands across, each of any width and colour, straight or waved."""
    down, across = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wave = rng.uniform(0, 0.15) * max(size) * (rng.random() < 0.4)
    place = down + wave * np.sin(across / max(size) * rng.uniform(3, 30))
    return _profile(max(size), colours, rng)[np.clip(place + wave, 0, max(size) - 1).astype(int)]


def _plaid(size, colours, rng):
    """Bands both ways, woven."""
    down, across = (_profile(side, colours, rng) for side in size)
    return _mixed(down[:, None], across[None], np.full(size, rng.uniform(0.3, 0.7), np.float32))


def _dots(size, colours, rng):
    """Dots, rings or squares in rows on a ground."""
    picture = np.full((*size, 3), colours[0], np.float32)
    step = max(6, _feature(size, rng))
    radius, thickness = max(1, round(step * rng.uniform(0.15, 0.5))), int(rng.choice([-1, -1, 2, 4]))
    is_round = rng.random() < 0.7
    for row, y in enumerate(np.arange(0, size[0] + step, step)):
        for x in np.arange(0, size[1] + step, step) + (row % 2) * step / 2:
            colour = colours[1 + rng.integers(len(colours) - 1)].tolist()
            if is_round:
                cv2.circle(picture, (int(x), int(y)), radius, colour, thickness)
            else:
                cv2.rectangle(
                    picture, (int(x) - radius, int(y) - radius), (int(x) + radius, int(y) + radius), colour, thickness
                )
    return picture


def _leaves(size, colours, rng):
    """Ellipses and polygons that hide one another (dead leaves; Lee, Mumford and Huang, 2001), each shaded."""
    picture = np.full((*size, 3), colours[0], np.float32)
    for _ in range(rng.integers(*LEAVES)):
        extent = max(size) * np.exp(rng.uniform(*np.log((0.02, 0.35))))
        colour = (_any(colours, rng, 1)[0] * rng.uniform(0.6, 1.1)).tolist()
        centre = rng.uniform(0, 1, 2) * size[::-1]
        if rng.random() < 0.5:
            axes = np.maximum(1, extent * rng.uniform(0.3, 1, 2) / 2).astype(int).tolist()
            cv2.ellipse(picture, centre.astype(int).tolist(), axes, rng.uniform(0, 180), 0, 360, colour, -1)
        else:
            corners = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
            points = centre + extent / 2 * np.stack([np.cos(corners), np.sin(corners)], axis=-1)
            cv2.fillPoly(picture, [np.rint(points).astype(np.int32)], colour)
    return picture * _noise(size, 30, rng, 0.75, 1.1)[..., None]


def _marble(size, colours, rng):
    """Colours that flow into one another: clouds, marble, oil on water."""
    height = sum(_noise(size, 3 * 2**octave, rng) / 1.7**octave for octave in range(5))
    place = (height - height.min()) / max(float(np.ptp(height)), 1e-6) * rng.uniform(1, 12) * len(colours)
    lower = np.floor(place).astype(int)
    mix = place - lower
    if rng.random() < 0.3:
        mix = np.round(mix)
    return _mixed(colours[lower % len(colours)], colours[(lower + 1) % len(colours)], mix)


KINDS = _facets, _facets, _tiles, _stripes, _plaid, _dots, _leaves, _leaves, _marble


def _any(colours, rng, count):
    """Return `count` of the colours, each a little off."""
    return colours[rng.integers(len(colours), size=count)] + rng.normal(0, 12, (count, 3)).astype(np.float32)


def _feature(size, rng):
    return max(size) * np.exp(rng.uniform(*np.log(FEATURE)))


def _mixed(one, other, mix):
    return (1 - mix[..., None]) * one + mix[..., None] * other


def _noise(size, cells, rng, low=0.0, high=1.0):
    """Return smooth noise with so many bumps along a side, float32 (*size,) about [low, high]."""
    coarse = rng.uniform(low, high, (cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def _profile(length, colours, rng):
    """Return colours along a line, (length, 3): bands of random widths, which repeat at times."""
    widths = np.maximum(2, max(length, 1) * np.exp(rng.uniform(*np.log((0.008, 0.15)), rng.integers(2, 9)))).astype(int)
    period = np.repeat(colours[rng.integers(len(colours), size=len(widths))], widths, axis=0)
    if rng.random() < 0.3:
        period = np.concatenate([period, period[::-1]])
    return period[np.arange(length) % len(period)]


def _seen_from_aside(picture, size, rng):
    """Return a turned part of the picture, in perspective, of the size given."""
    height, width = picture.shape[:2]
    corners = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    turned = np.roll(corners, rng.integers(4), axis=0) + rng.uniform(-0.2, 0.2, (4, 2)).astype(np.float32)
    source = np.float32((0.15 + 0.7 * turned) * (width - 1, height - 1))
    matrix = cv2.getPerspectiveTransform(source, corners * np.float32((size[1] - 1, size[0] - 1)))
    return cv2.warpPerspective(picture, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
