"""Prepare the folders that the clothing models are trained and validated on, the same for the same data.

usage: python benchmarks/clothing_data.py DATA_DIR OUT_DIR [--models saved_models] [--engine onnx-cpu] [--scenes 3000]

DATA_DIR holds ccp/{image,mask}, garments/rgba, backgrounds/image and clothing_cc0/image; OUT_DIR/wallpapers, which
`clothing_wallpapers.py` wrote, more backgrounds. Each other folder of OUT_DIR is pairs, image/ and mask/; one that is
there is kept. Training: `street` (ccp, its masks solved at their edges), `crops`
(parts of those), `flatlays` (clothing_cc0 with mattes of the official U2Net where U2NetP agrees) and `scenes` (garments
composited with exact alpha). Validation, of what `splits/` holds out: `val-street` (ccp's own masks), `val-composites`
(a garment on a background), `val-scenes` (as `scenes`), `val-portraits` (heads and shoulders out of `val-street`) and
`val-groups` (people of `val-street` side by side on other grounds).
"""

import argparse
import shutil
from functools import cache
from pathlib import Path

import clothing_groups as groups
import clothing_labels as labels
import clothing_scenes as scenes
import cv2
import numpy as np
from clothing_splits import held_out, shipped_photos

from keras_matting.matting import OutputOptions, Session
from keras_matting.photos.files import Photo, decode
from keras_matting.photos.refine import estimate_foreground

WIDTH = 400  # street photos and flat-lays are kept at that width
GROUND_SIDE = 800  # backgrounds' longer side
OUTFITS = 500  # street photos that give an outfit, a person without clothes and an empty street
MAX_LEFT = 0.04  # of a ground whose subject was taken out, at most, may still stand out
TEXTURE = "dtd_"  # how the names of textures begin among the backgrounds
VALIDATION_SCENES = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, default=Path("saved_models"), help="exported: u2net, u2netp")
    parser.add_argument("--engine", default="onnx-cpu")
    parser.add_argument("--scenes", type=int, default=3000)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Data(arguments.data, arguments.out, arguments.models, arguments.engine)
    for name, made in {
        "val-street": data.held_out_street,
        "val-composites": lambda: data.validation(scenes.simple_scene, arguments.out, seed=1),
        "val-scenes": lambda: data.validation(scenes.scene, arguments.out, seed=2),
        "val-portraits": data.held_out_portraits,
        "val-groups": lambda: data.validation(groups.group, arguments.out, seed=6),
        "flatlays": data.flatlays,
        "street": data.street,
        "crops": data.crops,
        "scenes": lambda: data.scenes(arguments.scenes),
    }.items():
        if not (arguments.out / name).exists():
            print(f"{name}: {_write(arguments.out / name, made())} pairs", flush=True)


class Data:
    """The photos at hand, and what is made of them: generators of (stem, picture, alpha), uint8 RGB and grey."""

    def __init__(self, root, out, models, engine):
        self.root, self.out = root, out
        self._session = cache(lambda name: Session(models / name, engine))

    def held_out_street(self):
        """Yield ccp's held-out photos with the masks that came with them."""
        for stem in sorted(held_out("ccp")):
            yield stem, *self._ccp(stem)

    def held_out_portraits(self):
        """Yield the head and shoulders of each of ccp's held-out photos."""
        for index, (stem, picture, mask) in enumerate(self.held_out_street()):
            yield stem, *scenes.portrait(picture, mask, np.random.default_rng([5, index]))

    def street(self):
        """Yield ccp's training photos with soft masks."""
        for path in self._paths("ccp/image", "ccp"):
            picture, mask = (_narrowed(one) for one in self._ccp(path.stem))
            if mask.any():
                yield path.stem, picture, labels.solve_edge(picture, mask)

    def crops(self):
        """Yield a random part of each of `street`."""
        for index, (stem, picture, alpha) in enumerate(pairs(self.out / "street")):
            yield stem, *scenes.crop(picture, alpha, np.random.default_rng([3, index]))

    def flatlays(self):
        """Yield flat-lays with the official U2Net's mattes where U2NetP agrees."""
        for stem, picture in self._flatlays():
            matte, other = (self._matte(name, picture) for name in ("u2net", "u2netp"))
            if labels.is_plausible(matte / 255, other / 255):
                yield stem, picture, matte

    def _flatlays(self):
        """Yield what may be trained on: none that ships with the package."""
        for path in self._paths("clothing_cc0/image", "clothing_cc0"):
            if path.stem not in shipped_photos():
                yield path.stem, _narrowed(decode(path.read_bytes()).rgb)

    def scenes(self, count):
        """Yield garments composited on what training may see."""
        yield from _rendered(scenes.scene, self.stock(), count, seed=4)

    def validation(self, render, out, seed):
        """Yield held-out garments, or people, on held-out backgrounds."""
        garments = [self._garment(stem) for stem in sorted(held_out("garments"))]
        photos = [self._background(stem) for stem in sorted(held_out("backgrounds"))]
        streets, people = [], []
        for _, picture, mask in pairs(out / "val-street"):
            street, person = self._street_parts(picture, mask)
            streets += [street] if street is not None else []
            people.append(_person(picture, person, mask))
        grounds = (photos,) if render is scenes.simple_scene else (photos, streets)
        yield from _rendered(render, scenes.Stock(garments, grounds, people=people), VALIDATION_SCENES, seed)

    def stock(self):
        """Return the `Stock` of what scenes are made of, each garment twice: they have exact edges."""
        garments = self.garments()
        laid = [_cut(picture, matte) for _, picture, matte in pairs(self.out / "flatlays")]
        streets, outfits, bare, people = [], [], [], []
        for _, picture, alpha in list(pairs(self.out / "street"))[:OUTFITS]:
            street, person = self._street_parts(picture, alpha)
            if street is not None:
                streets.append(street)
            outfits.append(_cut(picture, alpha))
            bare.append(_cut(picture, cv2.subtract(person, alpha)))
            people.append(_person(picture, person, alpha))
        grounds = tuple(tuple(kind) for kind in (*self._backgrounds(), streets, self._laid_grounds()) if kind)
        worn = tuple(outfits), tuple(filter(_is_seen, bare)), tuple(people)
        return scenes.Stock((*garments, *garments, *laid), grounds, *worn, is_varied=True)

    def _backgrounds(self):
        """Return (textures, photos): the photos with what `clothing_wallpapers.py` found."""
        paths = self._paths("backgrounds/image", "backgrounds")
        textures, photos = ([p for p in paths if p.stem.startswith(TEXTURE) == is_one] for is_one in (True, False))
        found = sorted((self.out / "wallpapers").glob("*.jpg"))
        print(f"backgrounds: {len(textures)} textures, {len(photos)} photos, {len(found)} wallpapers", flush=True)
        return [[_shrunk(decode(path.read_bytes()).rgb) for path in kind] for kind in (textures, photos + found)]

    def _laid_grounds(self):
        """Return what flat-lays lie on, the garment's columns filled by what is beside it."""
        filled = (scenes.empty_ground(picture, matte) for _, picture, matte in pairs(self.out / "flatlays"))
        return [picture for picture in filled if picture is not None and self._is_empty(picture)]

    def _is_empty(self, picture):
        return self._matte("u2netp", picture).mean() <= MAX_LEFT * 255

    def garments(self):
        """Return the garments that training may see, as cut-outs."""
        return [self._garment(path.stem) for path in self._paths("garments/rgba", "garments")]

    def _street_parts(self, picture, alpha):
        """Return (the street without the person, or None where others are on it; the person's matte)."""
        person = cv2.max(self._matte("u2netp", picture), alpha)
        street = scenes.empty_ground(picture, person)
        if street is not None and not self._is_empty(street):
            street = None
        return street, person

    def _paths(self, folder, split):
        """Return the files of a folder that are not held out, in order."""
        return [path for path in sorted((self.root / folder).iterdir()) if path.stem not in held_out(split)]

    def _ccp(self, stem):
        picture = decode((self.root / "ccp/image" / f"{stem}.jpg").read_bytes()).rgb
        return picture, cv2.imread(str(self.root / "ccp/mask" / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)

    def _garment(self, stem):
        photo = decode((self.root / "garments/rgba" / f"{stem}.png").read_bytes())
        return scenes.cropped(np.dstack([photo.rgb, photo.alpha]))

    def _background(self, stem):
        return _shrunk(decode((self.root / "backgrounds/image" / f"{stem}.jpg").read_bytes()).rgb)

    def _matte(self, name, picture):
        """Return the matte of an official model, uint8 (H, W)."""
        return self._session(name).matte(Photo(picture), OutputOptions(kind="mask"))


def _rendered(render, stock, count, seed):
    for index in range(count):
        yield f"{index:05d}", *render(stock, np.random.default_rng([seed, index]))


def _shrunk(rgb):
    """Return a background whose longer side is at most `GROUND_SIDE`."""
    scale = min(1, GROUND_SIDE / max(rgb.shape[:2]))
    return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _narrowed(picture):
    if picture.shape[1] <= WIDTH:
        return picture
    size = WIDTH, round(picture.shape[0] * WIDTH / picture.shape[1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _cut(picture, alpha):
    """Return the subject with its own colours as RGBA, cropped to it."""
    return scenes.cropped(np.dstack([estimate_foreground(picture, alpha / np.float32(255)), alpha]))


def _person(picture, person, clothes):
    """Return (a person as RGBA, what of it is clothing), cropped to the person."""
    whole = scenes.cropped(np.dstack([estimate_foreground(picture, person / np.float32(255)), person, clothes]))
    return np.ascontiguousarray(whole[..., :4]), np.ascontiguousarray(whole[..., 4])


def _is_seen(cutout):
    return cutout.size > 0 and min(cutout.shape[:2]) > 40


def pairs(folder):
    """Yield (stem, picture, alpha) of a folder that was written."""
    for path in sorted((folder / "image").iterdir()):
        mask = cv2.imread(str(folder / "mask" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        yield path.stem, decode(path.read_bytes()).rgb, mask


def _write(folder, made):
    """Write pairs, the folder under its name when it is whole; return how many there are."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name in ("image", "mask"):
        (part / name).mkdir(parents=True)
    count = 0
    for stem, picture, alpha in made:
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(part / "image" / f"{stem}.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), jpeg)
        cv2.imwrite(str(part / "mask" / f"{stem}.png"), alpha)
        count += 1
    part.rename(folder)
    return count


if __name__ == "__main__":
    main()
