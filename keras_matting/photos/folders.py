"""Which photos a folder or a glob holds, and what was left out and why: one answer for all that reads folders."""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_matting.files import StrPath, printable
from keras_matting.photos.files import EXTENSIONS

_GLOB_SIGNS = "*?["
_EXTENSION = re.compile(r"\.(?=\w*[a-z])\w{1,12}$", re.IGNORECASE)  # not that of "St. Tropez" or "photo.1"
# Pictures and videos that somebody may expect to be read. Notes, sidecars and the like are passed over in silence.
_PICTURE_NAMES = (
    "heic heif hif avif gif apng jxl jp2 j2k jpf jpx jpc jls jxr wdp hdp jng mng flif bpg qoi jpg jpeg jpe jfif "
    "png webp bmp dib tif tiff ppm pgm pbm pnm pam pfm tga pcx sgi dds exr hdr pic ico icns psd psb xcf kra ora "
    "svg svgz eps ai dcm fits insp livp dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 rwl raf pef raw 3fr fff iiq "
    "x3f erf kdc dcr mrw mos mef srw gpr mp4 mov m4v avi mkv webm 3gp mts m2ts wmv mpg mpeg insv "
)
PICTURES = frozenset(f".{name}" for name in _PICTURE_NAMES.split())
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"8BPS", b"\xff\x0a")
_NO_EXTENSION = "no extension"


@dataclass(frozen=True)
class LeftOut:
    """What is not read. `kind`: "format" (its extension is the reason), "repeated" (a link), "output", "unreadable"."""

    path: Path
    kind: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """Photos in order, the folder that their names are relative to, and all `LeftOut`, in order, too."""

    root: Path
    photos: tuple[Path, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def unreadable(self) -> list[LeftOut]:
        """What may hold photos and could not be read: a broken link, a folder without permission."""
        return [one for one in self.left_out if one.kind == "unreadable"]

    def told(self) -> list[str]:
        """Return the lines that tell what was left out: formats are counted, what could not be read is named."""
        lines = []
        formats = Counter(one.reason for one in self.left_out if one.kind == "format")
        if formats:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(formats.items(), key=_most_first))
            lines.append(f"{_count(formats.total(), 'file')} left out: {counts}")
        repeated = [one for one in self.left_out if one.kind == "repeated"]
        if repeated:
            lines.append(
                f"{_count(len(repeated), 'link')} left out: to photos that are read anyway, "
                f"as {printable(repeated[0].path)}"
            )
        outputs = [one for one in self.left_out if one.kind == "output"]
        if outputs:
            lines.append(f"{_count(len(outputs), 'output')} of keras-matting left out, as {printable(outputs[0].path)}")
        return lines + [f"not read: {printable(one.path)}: {one.reason}" for one in self.unreadable]


def none_found(source: object, listing: Listing) -> str:
    """Return the sentence for a listing without photos, with what was left out."""
    told = f" ({'; '.join(listing.told())})" if listing.left_out else ""
    return f"Expected photos ({', '.join(EXTENSIONS)}) in {source}; found none{told}."


def is_glob(source: str) -> bool:
    """Tell whether a name has one of the signs of a glob."""
    return not set(_GLOB_SIGNS).isdisjoint(source)


def list_folder(
    folder: StrPath, extensions: Collection[str] = EXTENSIONS, *, apart_from: StrPath | None = None, once: bool = True
) -> Listing:
    """Return the `Listing` of a folder and its subfolders.

    Hidden files and folders are passed over. Links are followed; each real folder is read once, under its own path
    where it has one. A link to a photo that is listed under its own path is left out, unless `once` is false, for
    files that are matched by their names. `apart_from`: a folder that is not read. FIFOs, sockets and devices are never
    opened. An unreadable folder is told in `left_out`, and the others are read.
    """
    return _list(Path(folder), ("**", "*"), extensions, apart_from, once)


def list_glob(
    pattern: StrPath, extensions: Collection[str] = EXTENSIONS, *, apart_from: StrPath | None = None
) -> Listing:
    """Return the `Listing` of a glob with `*`, `?`, `[...]` and `**`, in which extensions match in any case.

    As for `list_folder`: "photos/**/*.jpg" means the photos of `photos` that are called .jpg.
    """
    parts = list(Path(pattern).parts)
    root = Path()
    while parts and (not is_glob(parts[0]) or (root / parts[0]).exists()):  # a folder may be called "May [2024]"
        root /= parts.pop(0)
    if not parts or parts[-1] == "**":
        parts.append("*")
    return _list(root, parts, extensions, apart_from, True)


def _list(
    root: Path, parts: Sequence[str], extensions: Collection[str], apart_from: StrPath | None, once: bool
) -> Listing:
    reading = _Reading(extensions, apart_from)
    folders = [_Folder(root, os.path.realpath(root))]
    for part in parts[:-1]:
        folders = reading.below(folders) if part == "**" else reading.matching(folders, part)
    for folder in folders:
        reading.read(folder, parts[-1])
    photos = reading.files
    if once:
        own = {real: path for path, real, is_link in photos if not is_link}
        repeated = [(path, real) for path, real, is_link in photos if is_link and real in own]
        photos = [file for file in photos if not (file[2] and file[1] in own)]
        reading.left_out += [LeftOut(path, "repeated", f"a link to {printable(own[real])}") for path, real in repeated]
    left_out = sorted(dict.fromkeys(reading.left_out), key=lambda one: one.path)
    return Listing(root, tuple(sorted(path for path, *_ in photos)), tuple(left_out))


@dataclass(frozen=True)
class _Folder:
    """A folder to read: its path as it was reached, and the real one."""

    path: Path
    real: str


class _Reading:
    """What one listing has come across: files as (path, real path, whether it is a link), and what is left out."""

    def __init__(self, extensions: Collection[str], apart_from: StrPath | None) -> None:
        self.files: list[tuple[Path, str, bool]] = []
        self.left_out: list[LeftOut] = []
        self._extensions = extensions
        self._apart = None if apart_from is None else Path(os.path.realpath(apart_from))

    def below(self, folders: Sequence[_Folder]) -> list[_Folder]:
        """Return the folders and all below them, each real one once: first what no link leads to, then the rest."""
        found, seen, linked = [], set(), list(folders)
        while linked:
            waiting = [linked.pop(0)]
            while waiting:
                folder = waiting.pop()
                if folder.real in seen:
                    continue
                seen.add(folder.real)
                found.append(folder)
                for child, is_link in self._subfolders(folder):
                    (linked if is_link else waiting).append(child)
        return found

    def matching(self, folders: Sequence[_Folder], part: str) -> list[_Folder]:
        """Return the folders in those given that a part of a glob names, each real one once."""
        if not is_glob(part):
            named = [Path(folder.path, part) for folder in folders]
            chosen = [_Folder(path, os.path.realpath(path)) for path in named if path.is_dir()]
        else:
            children = [child for folder in folders for child in self._subfolders(folder)]
            children = [child for child in children if fnmatch.fnmatch(child[0].path.name, part)]
            chosen = [child for child, _ in sorted(children, key=lambda child: child[1])]
        return list({folder.real: folder for folder in reversed(chosen)}.values())[::-1]

    def read(self, folder: _Folder, pattern: str) -> None:
        """Add the files of a folder whose names match."""
        for entry in self._entries(folder):
            if _matches(entry.name, pattern) and not self._is_folder(entry):
                self._add(entry, folder)

    def _add(self, entry: os.DirEntry[str], folder: _Folder) -> None:
        extension = extension_of(entry.name)
        wanted = extension in self._extensions
        if not wanted and extension and extension not in PICTURES:
            return
        path = Path(folder.path, entry.name)
        try:
            is_file, is_link = entry.is_file(), entry.is_symlink()
        except OSError as error:
            self.left_out.append(LeftOut(path, "unreadable", error.strerror or str(error)))
            return
        if not is_file:
            if is_link and not path.exists():
                self.left_out.append(LeftOut(path, "unreadable", f"a link to {_target(path)}, which is not there"))
            elif wanted:
                self.left_out.append(LeftOut(path, "unreadable", "no file, but a FIFO, socket or device"))
        elif not wanted:
            if extension or _begins_like_a_picture(path):
                self.left_out.append(LeftOut(path, "format", extension or _NO_EXTENSION))
        else:
            real = os.path.realpath(path) if is_link else os.path.join(folder.real, entry.name)  # noqa: PTH118
            if not self._is_apart(real):
                self.files.append((path, real, is_link))

    def _subfolders(self, folder: _Folder) -> Iterator[tuple[_Folder, bool]]:
        """Yield (subfolder, whether it is a link)."""
        for entry in self._entries(folder):
            if self._is_folder(entry):
                path = Path(folder.path, entry.name)
                real = os.path.realpath(path) if entry.is_symlink() else os.path.join(folder.real, entry.name)  # noqa: PTH118
                yield _Folder(path, real), entry.is_symlink()

    def _entries(self, folder: _Folder) -> list[os.DirEntry[str]]:
        """Return what lies in a folder and is not hidden, in order; nothing if it cannot be read."""
        if self._is_apart(folder.real):
            return []
        try:
            with os.scandir(folder.path) as entries:
                return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            self.left_out.append(LeftOut(folder.path, "unreadable", error.strerror or str(error)))
            return []

    def _is_apart(self, real: str) -> bool:
        return self._apart is not None and Path(real).is_relative_to(self._apart)

    @staticmethod
    def _is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # of a link that leads where we may not look; `_add` tells it
            return False


def extension_of(name: str) -> str:
    """Return a file's extension in lower case, "" where what follows the last dot is none."""
    found = _EXTENSION.search(name, 1)
    return found[0].lower() if found else ""


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a file's name matches; its extension does in any case: cameras write .JPG."""
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatchcase(_with_low_suffix(name), _with_low_suffix(pattern))


def _with_low_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem + dot + suffix.lower()


def _begins_like_a_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            data = file.read(16)
    except OSError:
        return False
    return data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[4:8] == b"ftyp"


def _target(path: Path) -> str:
    try:
        return printable(os.readlink(path))  # noqa: PTH115 - as it stands there
    except OSError:
        return "something"


def _most_first(item: tuple[str, int]) -> tuple[int, bool, str]:
    return -item[1], item[0] == _NO_EXTENSION, item[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
