"""Runtimes that send nothing: ONNX Runtime, OpenVINO and NNCF report their use unless told not to.

Each decides when it is imported, once for its process, so every import of theirs here stands in `switched_off`.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_ONNX_RUNTIME = "ORT_DISABLE_TELEMETRY"
_OPENVINO = "openvino_telemetry"  # without this package OpenVINO and NNCF take a stub of their own
_importing = threading.RLock()


@contextmanager
def switched_off() -> Iterator[None]:
    """Import runtimes in this block: they send nothing, start no thread for it and leave no identifier in HOME.

    The environment and the other modules are afterwards what they were. A runtime that the process has imported
    before stays as it is, and so does what the user has set for ONNX Runtime.
    """
    with _importing:
        variable_was_set = _ONNX_RUNTIME in os.environ
        os.environ.setdefault(_ONNX_RUNTIME, "1")
        modules = cast("dict[str, ModuleType | None]", sys.modules)  # None: there is no such module
        there, before = _OPENVINO in modules, modules.get(_OPENVINO)
        modules[_OPENVINO] = None
        try:
            yield
        finally:
            if there:
                modules[_OPENVINO] = before
            else:
                del modules[_OPENVINO]
            if not variable_was_set:
                del os.environ[_ONNX_RUNTIME]
