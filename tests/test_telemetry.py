"""No runtime that we import sends anything or leaves an identifier (fault: telemetry)."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REPORTING = {"onnxruntime", "openvino", "nncf", "openvino_telemetry"}
# What openvino_telemetry and ONNX Runtime take for a machine of continuous integration, where they keep still.
CI = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "NNCF_CI", "NNCF_DEV", "XDG_CACHE_HOME")
LOOKUPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  FILE *log = fopen(getenv("LOOKUPS"), "a");
  if (log) { fprintf(log, "%s\\n", name ? name : "-"); fclose(log); }
  return ((resolver) dlsym(RTLD_NEXT, "getaddrinfo"))(name, service, hints, found);
}
"""
USES = {
    "matte": "for engine in ('onnx-cpu', 'openvino-f32'): keras_matting.matte(photo, model, engine)",
    "engines": "from keras_matting import engines; engines.available()",
    "export": "from keras_matting.export import export; from pathlib import Path; export(Path(model))",
    "quantise": (
        "from keras_matting import engines; from keras_matting.engines import BuildOptions\n"
        "batch = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)\n"
        "engines.build('openvino-int8', model, BuildOptions([batch] * 2))"
    ),
}
SCRIPT = """
import os, sys, threading
import numpy as np, keras_matting
model = {model!r}
photo = np.zeros((40, 30, 3), np.uint8)
before = dict(os.environ)
{use}
for name in ("ORT_DISABLE_TELEMETRY", "CI", "NNCF_CI"):
    assert os.environ.get(name) == before.get(name), name
assert "openvino_telemetry" not in sys.modules
threads = [thread.name for thread in threading.enumerate()]
assert not any(name.startswith("ThreadPoolExecutor") for name in threads), threads
"""


def run(script, home, **more):
    environment = {name: value for name, value in os.environ.items() if name not in CI}
    environment |= {"HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def identifiers(home):
    """Return the files in HOME but for those that hold settings or fonts."""
    kept = (".keras/keras.json", ".cache/matplotlib", ".config/matplotlib")
    names = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    return [name for name in names if not name.startswith(kept)]


@pytest.fixture(scope="module")
def lookups(tmp_path_factory):
    """A library that writes down every name that a process looks up, to be preloaded."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("lookups") / "lookups.c"
    source.write_text(LOOKUPS)
    library = source.with_suffix(".so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


@pytest.mark.parametrize("use", USES)
def test_nothing_is_looked_up_and_no_identifier_is_left(use, one_layer_dir, tmp_path, lookups):
    if use == "quantise":
        pytest.importorskip("nncf", reason="needs pip install '.[quantize]'")
    model = shutil.copytree(one_layer_dir, tmp_path / "model")
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    log.touch()
    run(SCRIPT.format(model=str(model), use=USES[use]), home, LD_PRELOAD=str(lookups), LOOKUPS=str(log))
    assert identifiers(home) == []
    assert log.read_text() == ""


def test_what_the_user_has_set_or_imported_stays(tmp_path):
    script = (
        "import os, sys, openvino_telemetry\n"
        "from keras_matting import telemetry\n"
        "with telemetry.switched_off():\n"
        "    assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'\n"
        "assert sys.modules['openvino_telemetry'] is openvino_telemetry\n"
    )
    run(script, tmp_path, ORT_DISABLE_TELEMETRY="0")


def test_every_import_of_a_runtime_that_reports_is_switched_off():
    files = [
        path
        for part in ("keras_matting", "api", "benchmarks", "deploy", "tests")
        for path in ROOT.glob(f"{part}/**/*.py")
    ]
    assert len(files) > 100
    for path in files:
        tree = ast.parse(path.read_text())
        quiet = {
            inner
            for node in ast.walk(tree)
            if (isinstance(node, ast.With) and "switched_off()" in ast.unparse(node.items[0]))
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")  # never imported
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            loud = [name for name in names if name.split(".")[0] in REPORTING]
            assert not loud or node in quiet, f"{path}:{node.lineno} imports {loud}"
