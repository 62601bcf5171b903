"""Runtimes that send nothing: ONNX Runtime, OpenVINO and NNCF report their use unless told not to.

Each decides when it is imported, once for its process, so every import of theirs here stands in `switched_off`.
"""

import os
import sys
import threading
from contextlib import contextmanager

_ONNX_RUNTIME = "ORT_DISABLE_TELEMETRY"
_OPENVINO = "openvino_telemetry"  # without this package OpenVINO and NNCF take a stub of their own
_importing = threading.RLock()


@contextmanager
def switched_off():
    """Import runtimes in this block: they send nothing, start no thread for it and leave no identifier in HOME.

    The environment and the other modules are afterwards what they were. A runtime that the process has imported
    before stays as it is, and so does what the user has set for ONNX Runtime.
    """
    with _importing:
        variable_was_set = _ONNX_RUNTIME in os.environ
        os.environ.setdefault(_ONNX_RUNTIME, "1")
        there, before = _OPENVINO in sys.modules, sys.modules.get(_OPENVINO)
        sys.modules[_OPENVINO] = None
        try:
            yield
        finally:
            if there:
                sys.modules[_OPENVINO] = before
            else:
                del sys.modules[_OPENVINO]
            if not variable_was_set:
                del os.environ[_ONNX_RUNTIME]
