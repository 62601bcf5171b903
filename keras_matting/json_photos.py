"""A folder of photos as JSON, as the service's `/v1/batch` takes it, and its answers as files.

One document, {"items": [{"id": UUID, "image": base64}, ...]}, or one such item on each line (`.ndjson`, `.jsonl`).
A photo's id is a UUID of its path within the folder, so that the answers find their names again.
"""

import base64
import json
import uuid
from pathlib import Path
from typing import NamedTuple

from keras_matting import base64_text, image_files
from keras_matting.errors import ImageError, UsageError
from keras_matting.files import swap, write_atomically
from keras_matting.predict import find_photos, outputs

LINES = (".ndjson", ".jsonl")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/keras-matting/photos")
_EXTENSIONS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIC": ".heic",
}


class Report(NamedTuple):
    """What became of the items: how many were written, and {id: why} of the others."""

    written: int
    failed: dict


def photo_id(name):
    """Return the UUID of a photo's path within its folder."""
    return str(uuid.uuid5(_NAMESPACE, Path(name).as_posix()))


def write_json(folder, path):
    """Write the photos of a folder and its subfolders as JSON; return how many. One photo is in memory at a time."""
    path = Path(path)
    _check_name(path)
    root, photos = find_photos(str(folder), path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            _write_items(file, root, photos, as_lines=path.suffix in LINES)
        swap(temporary, path)
    except OSError as error:
        raise UsageError(f"Expected to write {path}; received: {error.strerror}. Choose another place.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(photos)


def _write_items(file, root, photos, as_lines):
    file.write("" if as_lines else '{"items": [\n')
    for number, photo in enumerate(photos):
        image = base64.b64encode(photo.read_bytes()).decode()
        separator = "\n" if as_lines else ",\n"
        file.write(separator * (number > 0) + json.dumps({"id": photo_id(photo.relative_to(root)), "image": image}))
    file.write("\n" if as_lines else "\n]}\n")


def read_json(path, out_dir, photos_dir=None):
    """Write the images of a JSON file into a folder; return a `Report`.

    `path`: what `write_json` wrote, or what the service answered to it. `photos_dir`: the folder of `write_json`, from
    which the photos' names come, as `predict.outputs` chooses them; without it an image is called by its id. Raises
    `UsageError` if the file is no such JSON; an item without an image, or with a problem, is told in the report.
    """
    out_dir = Path(out_dir)
    names = _names(photos_dir, out_dir)
    written, failed = 0, {}
    for number, item in enumerate(_items(Path(path)), 1):
        name = item.get("id") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            failed[f"item {number}"] = "it has no id"
            continue
        try:
            data = _image_of(item)
            kind, _, _ = image_files.probe(data)
            write_atomically(_target(out_dir, names.get(name, name), kind), data)
            written += 1
        except ImageError as error:
            failed[name] = str(error)
    return Report(written, failed)


def _names(photos_dir, out_dir):
    if photos_dir is None:
        return {}
    root, photos = find_photos(str(photos_dir), out_dir)
    named = zip(photos, outputs(root, photos, Path(), ""), strict=True)
    return {photo_id(photo.relative_to(root)): name for photo, name in named}


def _items(path):
    """Yield the items of a JSON file, those of a document or those of its lines."""
    try:
        if path.suffix in LINES:
            with path.open(encoding="utf-8-sig") as file:
                yield from (json.loads(line) for line in file if line.strip())
        else:
            _check_name(path)
            yield from json.loads(path.read_bytes())["items"]
    except OSError as error:
        raise UsageError(f"Expected a JSON file at {path}; received: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f'Expected {path} as {{"items": [...]}} or as lines of items; received: {error}.') from None


def _image_of(item):
    problem = item.get("problem")
    if isinstance(problem, dict):
        raise ImageError(str(problem.get("detail", "a problem")))
    try:
        return base64_text.decode(item["image"])
    except base64_text.NotBase64Error as error:
        raise ImageError(f"Expected an image in base64; received {error}.") from None
    except (KeyError, TypeError):
        raise ImageError("Expected an image in base64; received none.") from None


def _target(out_dir, name, kind):
    """Return where an image goes: an id is a name from elsewhere, so it must not lead out of the folder."""
    target = out_dir / f"{name}{_EXTENSIONS[kind]}"
    if not target.resolve().is_relative_to(out_dir.resolve()):
        raise ImageError(f"Expected an id that is a name; received {str(name)!r}.")
    return target


def _check_name(path):
    if path.suffix not in (".json", *LINES):
        raise UsageError(f"Expected a file of .json, {', '.join(LINES)}; received {path}.")
