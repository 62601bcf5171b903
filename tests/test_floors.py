"""The package's floors (CONTRIBUTING.md): imports go downward only, and floor 0 needs no framework."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "keras_matting"
# Rooms and modules; a module that stands on another floor than its room is named itself.
FLOORS = {
    0: [
        "_version",
        "__init__",
        "architectures",
        "arrays",
        "cgroups",
        "engines",
        "errors",
        "files",
        "machine",
        "metrics",
        "model_folder",
        "overlap",
        "photos",
        "shipped",
        "telemetry",
    ],
    1: ["data", "models", "weights"],
    2: ["export", "onnx_graph", "training"],
    3: [
        "benchmarking",
        "evaluate",
        "experiments",
        "foreign",
        "foreign_onnx",
        "json_photos",
        "matting",
        "notebook",
        "predict",
        "raw_frames",
        "session_cache",
        "video",
        "weights.fetch",
    ],
    4: ["__main__", "cli"],
}
# `keras_matting.matte`, `matte_video` and the fetch at first use: reached only when called.
LAZY = {("__init__", "matting"), ("__init__", "video")}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}
# Floor 0 may build its engines with these, when a build is asked for.
FRAMEWORKS = {"tensorflow", "keras", "torch", "jax", "onnx"}


def imports_of(path):
    """Yield (top module, whole name) of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])


def floor_of(module):
    """Return the floor of a module, or of the room that it is in; None if there is no such module."""
    parts = module.split(".")
    return FLOOR_OF.get(".".join(parts[:2]), FLOOR_OF.get(parts[0]))


def test_every_module_has_a_floor():
    assert all(floor_of(module_of(path)) is not None for path in PACKAGE.rglob("*.py"))


def test_every_floor_lists_what_exists():
    assert all(
        (PACKAGE / name.replace(".", "/")).exists() or (PACKAGE / f"{name.replace('.', '/')}.py").exists()
        for name in FLOOR_OF
    )


def test_imports_go_downward_only():
    for path in PACKAGE.rglob("*.py"):
        importer = module_of(path)
        for name in imports_of(path):
            imported = name.removeprefix("keras_matting.")
            if imported != name and floor_of(imported) is not None and (importer, imported.split(".")[0]) not in LAZY:
                assert floor_of(imported) <= floor_of(importer), f"{path.name} imports {name}"


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    imports = {
        module: {name.removeprefix("keras_matting.") for name in imports_of(path)} & (set(modules) - {module})
        for module, path in modules.items()
    }
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_the_package_never_imports_the_service():
    for path in PACKAGE.rglob("*.py"):
        if module_of(path).split(".")[0] != "cli":
            assert not any(name.startswith("keras_matting_api") for name in imports_of(path)), path


@pytest.mark.parametrize("engine", ["onnx-cpu", "openvino-f32"])
def test_matting_with_a_light_engine_loads_no_framework(tiny_model_dir, engine):
    script = (
        "import sys, numpy as np, keras_matting\n"
        f"keras_matting.matte(np.zeros((40, 30, 3), np.uint8), {str(tiny_model_dir)!r}, {engine!r})\n"
        f"loaded = {FRAMEWORKS!r} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def python310():
    """Return a Python 3.10 with NumPy and OpenCV, from `make floor0-env`."""
    python = PACKAGE.parent / ".venv-py310" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-py310; run make floor0-env where Python 3.10 is installed")
    return python


def test_floor_0_runs_on_python_310(tiny_model_dir, tmp_path, write_photo):
    photo = write_photo(tmp_path / "a.png")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from keras_matting import engines, errors, files, model_folder\n"
        "from keras_matting.photos import files as photo_files\n"
        "from keras_matting.photos import imaging\n"
        "assert sys.version_info[:2] == (3, 10)\n"
        f"preset = model_folder.Preset.load({str(tiny_model_dir)!r})\n"
        f"photo = photo_files.decode(Path({str(photo)!r}).read_bytes())\n"
        "image = imaging.prepare(photo, preset)\n"
        f"engine = engines.open_engine('onnx-cpu', {str(tiny_model_dir)!r})\n"
        "matte = imaging.restore(engine.predict(image[None])[0], photo, preset)\n"
        "assert matte.shape == photo.rgb.shape[:2]\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([python310(), "-c", script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
