"""What is built for an engine, and the proof that it belongs to this model, runtime and device.

Beside every artefact stands a manifest: which weights and input size it was made from, by which runtime, for which
device, and each file's SHA-256. Opening checks it, so a stale, foreign or damaged artefact is refused with the reason.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_matting.errors import EngineError
from keras_matting.files import StrPath, file_sha256, replaced_folder, write_atomically
from keras_matting.model_folder import EXPORT_TARGETS, GRAPH, MANIFEST, ONNX_FILE, Preset, engine_dir, export_manifest

_BELONGS = {
    "weights_sha256": "weights",
    "input_size": "input size",
    "runtime": "runtime",
    "device": "device",
}


def write_manifest(path: StrPath, folder: StrPath, files: Iterable[StrPath], **fields: Any) -> None:
    """Write the manifest `path` with `fields` and the SHA-256 of `files`, paths relative to `folder`."""
    digests = {str(file): file_sha256(Path(folder) / file) for file in files}
    write_atomically(path, (json.dumps({**fields, "files": digests}, indent=2) + "\n").encode())


def exported(model_dir: StrPath, relative: str, engine: str) -> Path:
    """Return the path of the exported graph `relative` (a file or folder) of a model folder, checked.

    Raises `EngineError` if it is not there, damaged, or of other weights or another size than the preset says.
    """
    model_dir, preset = Path(model_dir), Preset.load(model_dir)
    target = f" --for {EXPORT_TARGETS[relative]}" if relative in EXPORT_TARGETS else ""
    remedy = f"run keras-matting export {model_dir}{target}"
    if not preset.has_keras and relative == ONNX_FILE:
        remedy = f"make the folder anew with keras-matting from-onnx {preset.source}"
    _check(model_dir / export_manifest(relative), model_dir, relative, engine, remedy, preset.identity)
    return model_dir / relative


def is_exported(model_dir: StrPath) -> bool:
    """Tell whether a model folder has graphs of its preset's weights and size, in today's form.

    What is damaged is told later.
    """
    manifest = read_manifest(Path(model_dir) / export_manifest(ONNX_FILE))
    expected = Preset.load(model_dir).identity | {"graph": GRAPH}
    is_current = all(manifest.get(name) == value for name, value in expected.items())
    return is_current and (Path(model_dir) / ONNX_FILE).is_file()


def fixed_batch(model_dir: StrPath) -> int | None:
    """Return the batch size that a model folder's ONNX file was made for, None where it takes any."""
    return read_manifest(Path(model_dir) / export_manifest(ONNX_FILE)).get("batch")


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or all files of a folder, in order."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def built(model_dir: StrPath, engine: str, runtime: str, device: str) -> Path:
    """Return the folder of a built engine, checked like `exported`, and against `runtime` and `device`."""
    folder = engine_dir(model_dir, engine)
    remedy = f"run keras-matting optimize {model_dir} --engines {engine}"
    expected = Preset.load(model_dir).identity | {"runtime": runtime, "device": device}
    _check(folder / MANIFEST, folder, "", engine, remedy, expected)
    return folder


@contextmanager
def building(
    model_dir: StrPath, engine: str, runtime: str, device: str, **fields: Any
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (a new folder, a dict for further manifest fields); it becomes the engine's folder when the block ends."""
    start = time.perf_counter()
    extra: dict[str, Any] = {}
    with replaced_folder(engine_dir(model_dir, engine)) as folder:
        yield folder, extra
        files = [path.relative_to(folder) for path in files_of(folder)]
        identity = Preset.load(model_dir).identity
        content = {"engine": engine, **identity, "runtime": runtime, "device": device, **fields, **extra}
        seconds = round(time.perf_counter() - start, 2)
        write_manifest(folder / MANIFEST, folder, files, **content, build_s=seconds)


def read_manifest(path: StrPath) -> dict[str, Any]:
    """Return a manifest's content, {} if there is none or it is malformed."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else {}


def size_mb(path: StrPath) -> float:
    """Return the size of a file, or of all files of a folder, in megabytes (10^6 bytes)."""
    return sum(file.stat().st_size for file in files_of(Path(path))) / 1e6


def _check(
    manifest_path: Path, folder: Path, relative: str, engine: str, remedy: str, expected: Mapping[str, Any]
) -> None:
    manifest = read_manifest(manifest_path)
    files = {name: digest for name, digest in manifest.get("files", {}).items() if name.startswith(str(relative))}
    if not files:
        raise EngineError(f"Engine {engine} has nothing built in {folder / relative}; {remedy}.")
    for field, value in expected.items():
        if manifest.get(field) != value:
            raise EngineError(
                f"Engine {engine} was built for another {_BELONGS[field]} ({_short(manifest.get(field))}, "
                f"here {_short(value)}); {remedy}."
            )
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise EngineError(f"Engine {engine}: {path} is missing or was changed after it was built; {remedy}.")


def _short(value: object) -> str:
    return str(value)[:60]
