"""Writing files and folders so that a reader never sees half of one."""

import glob
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TypeAlias

from keras_matting.errors import UsageError

StrPath: TypeAlias = str | os.PathLike[str]
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_STUB_BYTES = 256

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

# What the names of folders end in that are not whole yet, and that make room for another
_PARTIAL, _OLD = ".partial", ".old"
_HEAD_BYTES = 1 << 16  # by which a file is recognised


def write_atomically(path: StrPath, data: bytes) -> None:
    """Write `data` (bytes) under a temporary name beside `path`, then rename; parents are made.

    Raises `UsageError` where the folder cannot be written.
    """
    with replaced_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replaced_file(path: StrPath) -> Iterator[Path]:
    """Yield the name of a new file that takes the place of `path` when the block ends well, and vanishes when not.

    Parents are made. What a link leads to is replaced, or made, not the link. Raises `UsageError` where the folder
    cannot be written, or `path` is a pipe or a device.
    """
    require_no_stream(path)
    path = Path(os.path.realpath(path))
    # Random, so that threads and machines on one disk do not share it; short, since names are limited to 255 bytes.
    temporary = path.with_name(f".{token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"Expected to write {path}; received: {error.strerror}. Choose another place.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: StrPath) -> Iterator[Path]:
    """Yield a new folder that takes the place of `path` when the block ends well, and vanishes when it does not.

    What a process that was killed left there of its own is removed, or put back.
    """
    path = Path(path)
    if path.name.endswith(_PARTIAL) and path.is_dir() and not any(path.iterdir()):
        yield path  # within another block, which holds it: another folder in its place would be held by nobody
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_back(path)
        _remove_abandoned(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent))
    except OSError as error:
        raise UsageError(f"Expected to write {path}; received: {error.strerror}. Choose another place.") from None
    try:
        temporary.chmod(0o755)
        with locked_folder(temporary):
            yield temporary
            put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of `path` that no process holds any more; without locks nobody can tell."""
    if fcntl is None:
        return
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with suppress(UsageError, OSError), locked_folder(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _put_back(path: Path) -> None:
    """Put back what stood at `path` where a process was killed between the two renames of `put_in_place`."""
    if fcntl is None:
        return
    for old in sorted(path.parent.glob(f".{glob.escape(path.name)}.*{_OLD}")):
        with suppress(UsageError, OSError), locked_folder(old):
            if os.path.lexists(path):
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(path)


def put_in_place(source: Path, target: Path) -> None:
    """Rename the file or folder `source` to `target`; what stood there before is removed, or put back on failure.

    A file is replaced in one step. A folder cannot be: it has to make room first, and for that moment there is none.
    """
    if not source.is_dir() or not target.is_dir() or target.is_symlink():
        source.replace(target)
        return
    _put_back(target)
    old = target.with_name(f".{target.name}.{token_hex(4)}{_OLD}")
    with ExitStack() as stack:
        with suppress(UsageError):  # so that nobody else puts it back meanwhile
            stack.enter_context(locked_folder(target))
        target.rename(old)
        try:
            source.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def is_stream(path: StrPath) -> bool:
    """Tell whether a path is a FIFO, a socket or a device: read once, in the main thread, which a signal can end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def require_no_stream(path: StrPath) -> None:
    """Raise `UsageError` if `path` is a pipe or a device: a file in its place would leave its reader waiting."""
    if is_stream(path):
        raise UsageError(f"Expected a file to write; {printable(path)} is a pipe or a device. Choose another name.")


def is_json_with(*keys: str) -> Callable[[bytes], bool]:
    """Return what tells whether the first bytes of a file are those of a JSON object that begins with one of `keys`."""

    def tell(data: bytes) -> bool:
        found = re.match(rb'\s*{\s*"(\w+)"\s*:', data)
        return found is not None and found[1].decode() in keys

    return tell


def require_replaceable(path: StrPath | None, is_ours: Callable[[bytes], bool]) -> None:
    """Raise `UsageError` if `path` is a file of somebody else's: `is_ours`, given its first bytes, does not know it."""
    if path is None:
        return
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size == 0:  # nothing, or a device or pipe to write to
            return
        with path.open("rb") as file:
            known = is_ours(file.read(_HEAD_BYTES))
    except OSError:
        return  # whoever writes it will tell
    if not known:
        raise UsageError(
            f"{printable(path)} exists and was not written by keras-matting; choose another file, or remove it."
        )


def require_new_folder(folder: StrPath, force: bool, sign: str) -> None:
    """Raise `UsageError` if `folder` exists, unless `force` replaces it: then it is empty, or one of ours by a `sign`.

    `sign`: the name of a file that is in all of its kind. A training run has a preset, too, and is not replaced.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    if not force:
        raise UsageError(f"{folder} exists; choose another folder, or replace it with --force.")
    is_ours = (folder / sign).is_file() and not (folder / "run.json").exists()
    if not is_ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"--force replaces a folder with {sign} as a whole; {folder} is none. Choose another folder.")


def require_writable(folder: StrPath) -> None:
    """Make `folder`; raises `UsageError` if files cannot be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".{token_hex(8)}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"Expected to write into {folder}; received: {error.strerror}. Choose another place."
        ) from None


@contextmanager
def locked_folder(folder: StrPath, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; a process that dies lets go of it.

    Where another holds it, raises `UsageError`, or with `wait` goes on when that has let go. Nothing is written for it.
    Where the system or the disk knows no such locks, there is none.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise UsageError(
                    f"{folder} is in use by another process; wait for its end, or choose another."
                ) from None
        yield
    finally:
        os.close(descriptor)


def stub_told(path: StrPath) -> str | None:
    """Return what a file is that stands where a large one should, with the remedy, or None: a pointer or a web page."""
    with Path(path).open("rb") as file:
        start = file.read(_STUB_BYTES)
    if not start:
        return "it is empty and cannot be read: copy or download it again"
    if start.startswith(_LFS_POINTER):
        return "it is a Git LFS pointer, not the file itself: fetch that with git lfs pull"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: download the file itself, not the page about it"
    return None


def printable(name: StrPath) -> str:
    """Return a file's name for people: as it is, or quoted and escaped where something of it does not print."""
    text = os.fspath(name)
    return text if text.isprintable() else repr(text)


def text_bytes(text: str) -> bytes:
    """Return text as UTF-8, in which what a name has of other bytes is escaped: JSON reads its escapes back."""
    return text.encode("utf-8", "backslashreplace")


def name_bytes(name: StrPath) -> bytes:
    """Return the bytes of a name to take a digest of: of UTF-8 whatever the locale, also where it is not UTF-8."""
    return os.fspath(name).encode("utf-8", "surrogatepass")


def file_sha256(path: StrPath) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
