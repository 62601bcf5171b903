"""Scenes with exactly known alpha: garments at any place, size and crop, with what surrounds them in real photos.

Pictures are uint8 RGB (H, W, 3), cut-outs uint8 RGBA with the subject's own colours; `rng`: a NumPy generator.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CANVASES = (400, 400), (480, 360), (533, 400), (600, 400), (360, 480)  # height, width
SEVERAL, OUTFIT_CUT = 0.25, 0.5  # how often garments lie apart, and an outfit is shown in part
PROP, BARE, SHADOW = 0.2, 0.15, 0.6  # how often a hanger or stand, a person without clothes, a shadow is behind
HEAD, PORTRAIT = 0.5, (0.18, 0.45)  # how often of a bare person; a portrait's part of the whole photo's height
SIZES, SIZES_APART = (0.4, 1.25), (0.25, 0.5)  # of the longer side, relative to the canvas's
RECOLOURED = 0.3  # how often a varied ground is
SEEN = 0.5  # of a cut-out, at least, within the frame


@dataclass(frozen=True)
class Stock:
    """What scenes are made of. Cut-outs: `garments`, `outfits` and `bare` people; pictures: `grounds`, by kind.

    `people`: (cut-out, what of it is clothing, uint8 (H, W)). Kinds of grounds have the same share, however many
    pictures one has. `is_varied`: grounds are also turned and recoloured.
    """

    garments: tuple
    grounds: tuple
    outfits: tuple = ()
    bare: tuple = ()
    people: tuple = ()
    outfit_share: float = 0.15
    is_varied: bool = False


def scene(stock, rng):
    """Return (picture, alpha), uint8 (H, W, 3) and (H, W): one or several garments on a ground."""
    size = CANVASES[rng.integers(len(CANVASES))]
    picture = ground(stock, size, rng)
    alpha = np.zeros(size, np.float32)
    if stock.bare and rng.random() < BARE:
        picture = _with_person(picture, stock, rng)
    for centre, sizes in _places(rng):
        cutout, is_outfit = _subject(stock, rng)
        cutout = recoloured(cutout, rng)
        if not is_outfit and rng.random() < PROP:
            cutout, prop = _with_prop(cutout, rng)
        else:
            prop = None
        placement = _placement(cutout, size, sizes, centre, rng)
        if prop is not None:
            picture, _ = put(picture, alpha, warped(prop, size, placement), rng)
        picture, alpha = put(picture, alpha, warped(cutout, size, placement), rng, is_subject=True)
    return picture, np.rint(alpha * 255).astype(np.uint8)


def simple_scene(stock, rng, size=(480, 480)):
    """Return (picture, alpha): one garment, whole or nearly so, on a ground; the plain case, to validate on."""
    picture, alpha = ground(stock, size, rng), np.zeros(size, np.float32)
    cutout = _any(stock.garments, rng)
    placed = warped(cutout, size, _placement(cutout, size, (0.5, 1.0), rng.uniform(0.35, 0.65, 2), rng, turn=0))
    picture, alpha = put(picture, alpha, placed, rng, is_subject=True)
    return picture, np.rint(alpha * 255).astype(np.uint8)


def bare_scene(stock, rng):
    """Return (picture, alpha): a ground with nothing to take on it, at times a person without clothes; alpha is 0."""
    size = CANVASES[rng.integers(len(CANVASES))]
    picture, alpha = ground(stock, size, rng), np.zeros(size, np.float32)
    if stock.bare and rng.random() < 0.5:
        picture = _with_person(picture, stock, rng)
    return picture, alpha.astype(np.uint8)


def empty_ground(picture, subject):
    """Return the picture with a subject's columns filled by mirror images of what is beside them, or None.

    `subject`: its matte, uint8 (H, W). None where there is too little beside it.
    """
    columns = np.flatnonzero((subject > 12).any(axis=0))
    if not len(columns):
        return picture
    margin = max(4, picture.shape[1] // 50)
    left, right = max(0, columns[0] - margin), min(picture.shape[1], columns[-1] + margin)
    sides = picture[:, :left], picture[:, right:]
    wide = [side for side in sides if side.shape[1] >= picture.shape[1] // 6]
    if not wide:
        return None
    width = picture.shape[1]
    from_left = np.pad(sides[0], ((0, 0), (0, width - left), (0, 0)), "symmetric") if left >= width // 6 else None
    from_right = np.pad(sides[1], ((0, 0), (right, 0), (0, 0)), "symmetric") if width - right >= width // 6 else None
    if from_left is None or from_right is None:
        return from_right if from_left is None else from_left
    fade = np.clip((np.arange(width) - left) / max(1, right - left), 0, 1)[None, :, None]
    return np.rint(from_left * (1 - fade) + from_right * fade).astype(np.uint8)


def crop(picture, alpha, rng):
    """Return a random part of a photo and its alpha that shows some of the subject: a half of a person, a close-up."""
    height, width = alpha.shape
    part = rng.uniform(0.35, 0.75)
    rows, columns = round(height * part), min(width, round(width * rng.uniform(part, 1.0)))
    for _ in range(20):
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        place = slice(top, top + rows), slice(left, left + columns)
        if alpha[place].mean() > 0.05 * 255:
            break
    return picture[place], alpha[place]


def portrait(picture, alpha, rng):
    """Return a person's head and shoulders, and their alpha: what is around the place where the clothes begin.

    A hat, or whatever else is clothing to `alpha`, is the beginning.
    """
    height, width = alpha.shape
    clothed = np.flatnonzero((alpha > 127).any(axis=1))
    if not len(clothed):
        return picture, alpha
    rows = max(3, round(height * rng.uniform(*PORTRAIT)))
    columns = min(width, round(rows * rng.uniform(0.75, 1.3)))
    middle = np.flatnonzero((alpha[clothed[0] : clothed[0] + rows // 3] > 127).any(axis=0)).mean()
    top = np.clip(clothed[0] - rows * rng.uniform(0.25, 0.6), 0, height - rows)
    left = np.clip(middle - columns * rng.uniform(0.35, 0.65), 0, width - columns)
    place = slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)
    return picture[place], alpha[place]


def _with_person(picture, stock, rng):
    """Return the picture with a person without clothes, or the head alone, before it."""
    person, sizes = _any(stock.bare, rng), (0.6, 1.2)
    if rng.random() < HEAD:
        person, sizes = cropped(person[: max(1, round(person.shape[0] * rng.uniform(0.14, 0.25)))]), (0.3, 1.0)
    size = picture.shape[:2]
    placed = _placed(person, size, sizes, (0.5, 0.5), rng)
    return put(picture, np.zeros(size, np.float32), placed, rng)[0]


def cropped(cutout):
    """Return the part of a cut-out where something is seen; one where nothing is as it is."""
    left, top, width, height = cv2.boundingRect((cutout[..., 3] > 8).astype(np.uint8))
    return np.ascontiguousarray(cutout[top : top + height, left : left + width]) if width else cutout


def _any(things, rng):
    return things[rng.integers(len(things))]


def _subject(stock, rng):
    """Return (cut-out, whether it is a person's outfit, whole or in part)."""
    if not stock.outfits or rng.random() >= stock.outfit_share:
        return _any(stock.garments, rng), False
    outfit = _any(stock.outfits, rng)
    if rng.random() < OUTFIT_CUT:
        cut = round(outfit.shape[0] * rng.uniform(0.35, 0.65))
        outfit = outfit[:cut] if rng.random() < 0.6 else outfit[cut:]
    return outfit, True


def _places(rng):
    """Return [(centre in parts of the frame (y, x), sizes)]."""
    if rng.random() >= SEVERAL:
        return [(rng.uniform(0.2, 0.8, 2), SIZES)]
    corners = rng.permutation([(0.27, 0.27), (0.27, 0.73), (0.73, 0.27), (0.73, 0.73)])
    return [(corner + rng.uniform(-0.06, 0.06, 2), SIZES_APART) for corner in corners[: rng.integers(2, 4)]]


def ground(stock, size, rng):
    """Return a random place of a random picture, mirrored at random, sometimes a plain wall: uint8 (*size, 3)."""
    if rng.random() < 0.1:
        return _wall(size, rng)
    picture = _any(_any(stock.grounds, rng), rng)
    if stock.is_varied:
        picture = varied(picture, rng)
    least = max(size[0] / picture.shape[0], size[1] / picture.shape[1])
    scale = least * rng.uniform(1.0, 1.6)
    shown = [max(1, min(have, round(side / scale))) for side, have in zip(size, picture.shape[:2], strict=True)]
    top, left = (rng.integers(have - side + 1) for have, side in zip(picture.shape[:2], shown, strict=True))
    place = picture[top : top + shown[0], left : left + shown[1]]
    if rng.random() < 0.5:
        place = place[:, ::-1]
    return cv2.resize(np.ascontiguousarray(place), size[::-1], interpolation=cv2.INTER_LINEAR)


def varied(picture, rng):
    """Return a ground as others of its kind might look: turned by quarters, of another hue, of another contrast."""
    picture = np.rot90(picture, rng.choice(4, p=[0.7, 0.1, 0.1, 0.1]))
    if rng.random() < RECOLOURED:
        hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(180)) % 180
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.4, 1.6), 0, 255)
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < RECOLOURED:
        picture = np.clip(128 + (picture - np.float32(128)) * rng.uniform(0.5, 1.5), 0, 255).astype(np.uint8)
    return picture


def _wall(size, rng):
    """Return a plain colour with a slope of light: uint8 (*size, 3)."""
    colour = rng.uniform(30, 250) + rng.normal(0, 15, 3)
    slope = rng.normal(0, 25, 2)
    light = np.linspace(-1, 1, size[0])[:, None] * slope[0] + np.linspace(-1, 1, size[1])[None] * slope[1]
    return np.clip(colour + light[..., None] + rng.normal(0, 3, (*size, 1)), 0, 255).astype(np.uint8)


def recoloured(cutout, rng):
    """Return a cut-out with another hue, at times, and brightness: a shape comes in many colours."""
    rgb = cutout[..., :3]
    if rng.random() < 0.4:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(180)) % 180
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    rgb = np.clip(rgb * rng.uniform(0.75, 1.15) + rng.uniform(-15, 25), 0, 255)
    return np.dstack([rgb.astype(np.uint8), cutout[..., 3]])


def _placement(cutout, size, sizes, centre, rng, turn=15):
    """Return the affine matrix (2, 3) that puts a cut-out into the frame so that `SEEN` of it is there."""
    height, width = cutout.shape[:2]
    for _ in range(20):
        scale = rng.uniform(*sizes) * max(size) / max(height, width)
        stretch = np.exp(rng.uniform(-0.15, 0.15))
        angle = np.radians(rng.uniform(-180, 180) if turn and rng.random() < 0.15 else rng.uniform(-turn, turn))
        side = rng.choice([-1, 1])
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turned @ np.diag([side * scale * stretch, scale / stretch])
        target = np.array([centre[1] * size[1], centre[0] * size[0]])
        shift = target - matrix @ [width / 2, height / 2]
        whole = cutout[..., 3].sum(dtype=np.float64) * abs(np.linalg.det(matrix))
        placed = cv2.warpAffine(cutout[..., 3], np.column_stack([matrix, shift]), size[::-1])
        if placed.sum(dtype=np.float64) >= SEEN * whole:
            break
        centre = 0.5 + (np.asarray(centre) - 0.5) * 0.8
    return np.column_stack([matrix, shift])


def _placed(cutout, size, sizes, centre, rng):
    return warped(cutout, size, _placement(cutout, size, sizes, centre, rng))


def warped(cutout, size, matrix):
    """Return the cut-out in the frame: float32 (*size, channels) in [0, 1], premultiplied, shrunk without aliasing.

    A fifth channel is what of it is the subject.
    """
    premultiplied = cutout.astype(np.float32) / 255
    premultiplied[..., :3] *= premultiplied[..., 3:4]
    shrink = 1 / max(np.sqrt(abs(np.linalg.det(matrix[:, :2]))), 1e-3)
    if shrink > 1.2:
        premultiplied = cv2.GaussianBlur(premultiplied, (0, 0), 0.4 * shrink)
    return np.clip(cv2.warpAffine(premultiplied, matrix, size[::-1], flags=cv2.INTER_LINEAR), 0, 1)


def put(picture, alpha, placed, rng, is_subject=False):
    """Return (picture, alpha) with a placed cut-out on it; what of it is no subject takes its place from alpha."""
    if rng.random() < 0.3:
        placed = cv2.GaussianBlur(placed, (0, 0), rng.uniform(0.4, 1.2))
    cover = placed[..., 3:4]
    below = picture.astype(np.float32)
    if rng.random() < SHADOW:
        below *= _light(placed[..., 3], rng)[..., None]
    picture = np.clip(np.rint(placed[..., :3] * 255 + below * (1 - cover)), 0, 255).astype(np.uint8)
    return picture, alpha * (1 - placed[..., 3]) + (placed[..., -1] if is_subject else 0)


def _light(cover, rng):
    """Return what a soft shadow leaves of the light, (H, W)."""
    reach = rng.uniform(2, 25)
    shift = np.float32([[1, 0, rng.normal(0, reach / 2)], [0, 1, rng.normal(reach / 3, reach / 2)]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, shift, cover.shape[::-1]), (0, 0), reach / 2)
    return 1 - rng.uniform(0.1, 0.6) * shadow


def _with_prop(cutout, rng):
    """Return (garment, prop): both on a canvas of one size, the prop a hanger or a stand behind the garment."""
    margin = cutout.shape[0] // 4
    garment = cv2.copyMakeBorder(cutout, margin, margin, 0, 0, cv2.BORDER_CONSTANT)
    prop, shape = np.zeros_like(garment), np.zeros(garment.shape[:2], np.uint8)
    draw = _draw_hanger if rng.random() < 0.75 else _draw_stand
    draw(shape, cutout[..., 3], margin, rng)
    prop[..., :3] = np.clip(rng.choice([25, 90, 150, 230]) + rng.normal(0, 20, 3), 0, 255)
    prop[..., 3] = cv2.GaussianBlur(shape, (0, 0), 0.7)
    return garment, prop


def _neck(alpha):
    """Return (x, y) of the middle of a garment's upper edge."""
    width = alpha.shape[1]
    middle = alpha[:, width // 3 : width - width // 3] > 127
    rows = np.flatnonzero(middle.any(axis=1))
    return width // 2, int(rows[0]) if len(rows) else 0


def _draw_hanger(shape, alpha, margin, rng):
    x, y = _neck(alpha)
    y += margin
    thickness = max(2, round(shape.shape[1] * rng.uniform(0.008, 0.025)))
    reach, drop = round(shape.shape[1] * rng.uniform(0.2, 0.35)), round(shape.shape[1] * rng.uniform(0.06, 0.12))
    top = y - round(margin * rng.uniform(0.0, 0.3))
    cv2.polylines(
        shape, [np.array([[x - reach, top + drop], [x, top], [x + reach, top + drop]])], False, 255, thickness
    )
    radius = round(margin * rng.uniform(0.12, 0.25))
    wire = max(1, thickness // 2)
    cv2.line(shape, (x, top), (x, top - radius), 255, wire)
    cv2.ellipse(shape, (x, top - 2 * radius), (radius, radius), 0, -200, 90, 255, wire)


def _draw_stand(shape, alpha, margin, rng):
    x, y = _neck(alpha)
    wide = round(shape.shape[1] * rng.uniform(0.05, 0.1))
    cv2.ellipse(shape, (x, y + margin), (wide, 2 * wide), 0, 0, 360, 255, -1)
    cv2.line(shape, (x, y + margin), (x, shape.shape[0]), 255, max(2, wide // 3))
