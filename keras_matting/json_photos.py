"""A folder of photos as JSON, as the service's `/v1/batch` takes it, and its answers as files.

One document, {"items": [{"id": UUID, "image": base64}, ...]}, or one such item on each line (`.ndjson`, `.jsonl`).
A photo's id is a UUID of its path within the folder, so that the answers find their names again.
"""

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from keras_matting.errors import ImageError, MattingError, UsageError
from keras_matting.files import StrPath, name_bytes, printable, replaced_file, require_replaceable, write_atomically
from keras_matting.photos import base64_text
from keras_matting.photos import files as photo_files
from keras_matting.photos.folders import Listing
from keras_matting.photos.naming import name_key, outputs
from keras_matting.predict import find_photos

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
_LONGEST_NAME = 255  # bytes, on nearly every disk
_SHOWN = 60  # characters of an id
# Names that mean devices on Windows, with any extension: a folder of photos travels.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


class Report(NamedTuple):
    """What became of the items: how many were written, and {which: why} of the others."""

    written: int
    failed: dict[str, str]


def photo_id(name: StrPath) -> str:
    """Return the UUID of a photo's path within its folder."""
    # uuid5 takes text only, which a name that is not UTF-8 is not.
    digest = sha1(_NAMESPACE.bytes + name_bytes(Path(name).as_posix()), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def write_json(
    folder: StrPath, path: StrPath, on_left_out: Callable[[Listing], object] = lambda listing: None
) -> Report:
    """Write the photos of a folder and its subfolders as JSON; return a `Report`. One photo is in memory at a time.

    `on_left_out` is called with the folder's `Listing`. A photo that cannot be read is told in the report.
    """
    path = Path(path)
    _check_name(path)
    listing = find_photos(str(folder), path)
    require_replaceable(path, lambda data: data.startswith((b'{"id": ', b'{"items": [')))
    on_left_out(listing)
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        return _write_items(file, listing, as_lines=path.suffix in LINES)


def _write_items(file: TextIO, listing: Listing, as_lines: bool) -> Report:
    written, failed = 0, {}
    file.write("" if as_lines else '{"items": [\n')
    for photo in listing.photos:
        try:
            image = base64.b64encode(photo.read_bytes()).decode()
        except OSError as error:
            failed[printable(photo)] = error.strerror or str(error)
            continue
        item = {"id": photo_id(photo.relative_to(listing.root)), "image": image}
        file.write(("\n" if as_lines else ",\n") * (written > 0) + json.dumps(item))
        written += 1
    file.write("\n" if as_lines else "\n]}\n")
    return Report(written, failed)


def read_json(path: StrPath, out_dir: StrPath, photos_dir: StrPath | None = None, *, overwrite: bool = False) -> Report:
    """Write the images of a JSON file into a folder; return a `Report`.

    `path`: what `write_json` wrote, or what the service answered to it. `photos_dir`: the folder of `write_json`, from
    which the photos' names come, as `naming.outputs` chooses them; without it an image is called by its id. An item
    without an image, with a problem, or whose id is no name for a file is told in the report, and so is one whose file
    is there with another content, unless `overwrite`. Raises `UsageError` if the file is no such JSON.
    """
    out_dir = Path(out_dir)
    names = _names(photos_dir, out_dir)
    written = 0
    failed: dict[str, str] = {}
    taken: dict[str, str] = {}
    for place, item in _items(Path(path)):
        try:
            name = _id_of(item)
            place = f"{place}, {_shown(str(names.get(name, name)))}"
            target, data = _file_of(item, names.get(name, name), out_dir)
            earlier = taken.setdefault(name_key(target), place)
            if earlier != place:
                raise ImageError(f"Expected ids that are names of their own; {earlier} has this one.")
            _write(target, data, overwrite)
            written += 1
        except MattingError as error:
            failed[place] = str(error)
    return Report(written, failed)


def _names(photos_dir: StrPath | None, out_dir: Path) -> dict[str, Path]:
    if photos_dir is None:
        return {}
    listing = find_photos(str(photos_dir), out_dir)
    root, photos = listing.root, listing.photos
    named = zip(photos, outputs(root, photos, Path(), ""), strict=True)
    return {photo_id(photo.relative_to(root)): name for photo, name in named}


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (which it is, item) of a JSON file, those of a document or those of its lines."""
    try:
        if path.suffix in LINES:
            yield from _lines(path)
        else:
            _check_name(path)
            for number, item in enumerate(json.loads(path.read_bytes())["items"], 1):
                yield f"item {number}", item
    except OSError as error:
        raise UsageError(f"Expected a JSON file at {path}; received: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f'Expected {path} as {{"items": [...]}} or as lines of items; received: {error}.') from None


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the lines of a file; one that is no JSON, as the last of an answer that was cut off, as its `ValueError`.

    Raises that error if no line is JSON.
    """
    is_json, error = False, None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item, is_json = json.loads(line), True
            except (ValueError, RecursionError) as reason:
                item = error = ValueError(f"Expected JSON; received: {reason}.")
            yield f"line {number}", item
    if error and not is_json:
        raise error


def _id_of(item: Any) -> str:
    """Return the id of an item; raises `ImageError` if it has none."""
    if isinstance(item, ValueError):
        raise ImageError(str(item))
    name = item.get("id") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name:
        received = "none" if name is None or name == "" else repr(name)[:_SHOWN]
        raise ImageError(f"Expected an item with an id of text; received {received}. It has no id.")
    return name


def _file_of(item: Any, name: str | Path, out_dir: Path) -> tuple[Path, bytes]:
    """Return (path, bytes) of an item's image. An id is a name from elsewhere: it must be one, within the folder."""
    data = _image_of(item)
    kind, _, _ = photo_files.probe(data)
    path = f"{name}{_EXTENSIONS[kind]}"
    if isinstance(name, str):
        _check_id(name, path)
    target = out_dir / path
    if not target.resolve().is_relative_to(out_dir.resolve()):
        raise ImageError(f"Expected an id that is a name; received {_shown(str(name))}, which leads out of the folder.")
    return target, data


def _check_id(name: str, path: str) -> None:
    """Raise `ImageError` if an id cannot be the name of a file, or of one in a subfolder."""
    separators = "/\\" if os.name == "nt" else "/"
    parts = path.replace(separators[-1], "/").split("/")
    reason = None
    if any(0xD800 <= ord(letter) < 0xE000 for letter in name):
        reason = "it holds half of a surrogate pair"
    elif any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        reason = "it holds a control character"
    elif name.endswith(("/", "/.", "/..")) or any(not part or part[0] == "." for part in parts):
        reason = "a part of it is empty or begins with a dot"
    elif any(part.split(".")[0].strip().lower() in _RESERVED for part in parts):
        reason = "it means a device on Windows"
    elif os.name == "nt" and set('<>:"|?*').intersection(name):
        reason = "it holds a sign that no name has on Windows"
    elif max(len(os.fsencode(part)) for part in parts) > _LONGEST_NAME:
        reason = f"a name has at most {_LONGEST_NAME} bytes"
    if reason:
        raise ImageError(f"Expected an id that is a name for a file; {reason}.")


def _write(target: Path, data: bytes, overwrite: bool) -> None:
    if not overwrite and target.exists() and not _holds(target, data):
        raise UsageError(f"{printable(target)} exists; choose another folder, or add --overwrite")
    write_atomically(target, data)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _image_of(item: Any) -> bytes:
    problem = item.get("problem")
    if isinstance(problem, dict):
        raise ImageError(str(problem.get("detail", "a problem")))
    try:
        return base64_text.decode(item["image"])
    except base64_text.NotBase64Error as error:
        raise ImageError(f"Expected an image in base64; received {error}.") from None
    except (KeyError, TypeError):
        raise ImageError("Expected an image in base64; received none.") from None


def _shown(name: str) -> str:
    short = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return printable(short)


def _check_name(path: Path) -> None:
    if path.suffix not in (".json", *LINES):
        raise UsageError(f"Expected a file of .json, {', '.join(LINES)}; received {path}.")
