"""TensorRT's Python API, 8.5 to 11 and TensorRT for RTX, behind one adapter: ONNX -> engine -> execution.

Precision stands in the ONNX graph (lower.py), because TensorRT 11 and TensorRT for RTX take it from nowhere else. Where
networks cannot be strongly typed (before TensorRT 9), builder flags allow the precision and the sensitive layers are
pinned to float32. Only calls by tensor name are used, which all these versions share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keras_matting.arrays import Float32, Uint8
from keras_matting.engines.artefacts import building, built, exported
from keras_matting.engines.base import BuildOptions, checked_batch, checked_bytes
from keras_matting.engines.lowered import lowered_onnx
from keras_matting.errors import EngineError
from keras_matting.files import StrPath, write_atomically
from keras_matting.machine import gpu, gpu_float32, gpu_name, missing_gpu, runtime
from keras_matting.model_folder import ONNX_FILE, engine_dir

# TensorRT for RTX first: it also builds on machines without a GPU, for any RTX card.
_PACKAGES = {"tensorrt_rtx": ("tensorrt-rtx-cu13",), "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")}
PLAN = "engine.plan"
_WORKSPACE_BYTES = 2 << 30
# From TensorRT for RTX's support matrix, less Turing (7.5), which the portable engines that it builds leave out.
_RTX_CAPABILITIES = ("8.6", "8.9", "12.0", "12.1")
UINT8 = "fp16-uint8"  # the variant, in no list of engines, that takes `imaging.sized` and normalises on the GPU
_FLOAT_BYTES = 4
_LOGGED_LINES = 5
_LOGGED_CHARACTERS = 240
_INPUT, _OUTPUT = "image", "matte"


def unavailable_reason(variant: str) -> str | None:
    """Return why TensorRT cannot run here, or None."""
    if not (package := _package()):
        return f"neither {' nor '.join(_PACKAGES)} is installed; pip install 'keras-matting[gpu]'."
    if reason := missing_gpu():
        return reason
    if package == "tensorrt_rtx" and not _is_for_rtx():
        return f"TensorRT for RTX does not support {gpu_name()}; install tensorrt."
    return None


def build_unavailable_reason(variant: str) -> str | None:
    """Return why TensorRT cannot build here, or None: TensorRT for RTX needs no GPU to build."""
    if _package() == "tensorrt_rtx":
        return None
    return unavailable_reason(variant)


def build(model_dir: StrPath, variant: str, options: BuildOptions) -> None:
    """Build `engines/tensorrt-VARIANT/engine.plan` with kernels for `options.batches` and what lies between."""
    engine = f"tensorrt-{variant}"
    with building(model_dir, engine, _runtime(), _device(), precision=variant, max_batch=options.max_batch) as (
        folder,
        extra,
    ):
        source = _in_precision(model_dir, variant, folder, options)
        plan, network = _build_plan(source, variant, options.batches, engine_dir(model_dir, _timing_cache()))
        extra |= network
        if variant == "int8":
            extra |= options.calibration_fields
        (folder / PLAN).write_bytes(plan)
        for path in folder.glob("*.onnx"):
            path.unlink()


def check_current(model_dir: StrPath, variant: str) -> None:
    """Raise `EngineError` unless what `build` makes is there and fits."""
    built(model_dir, f"tensorrt-{variant}", _runtime(), _device())


def open_engine(model_dir: StrPath, variant: str) -> TensorRtEngine:
    """Load a built engine on the GPU."""
    folder = built(model_dir, f"tensorrt-{variant}", _runtime(), _device())
    return TensorRtEngine(folder, variant)


class TensorRtEngine:
    """A deserialised engine with an execution context for each of its profiles, on one CUDA `stream`.

    `image` and `matte`: the device memory that a run reads and writes. `dtype`: the input's.
    """

    def __init__(self, folder: Path, variant: str) -> None:
        from keras_matting.engines.cuda import Buffer, Stream

        trt = _module()
        self.name, self.path, self._variant = f"tensorrt-{variant}", folder, variant
        self.dtype = np.dtype(np.uint8 if variant == UINT8 else np.float32)
        self._log = new_log(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine((folder / PLAN).read_bytes())
        if self._engine is None:
            raise EngineError(
                f"Engine {self.name}: TensorRT cannot load {folder / PLAN}; build it again.{self._log.told()}"
            )
        self.stream, self.image, self.matte = Stream(), Buffer(), Buffer()
        self._contexts = [self._context(profile) for profile in range(self._engine.num_optimization_profiles)]
        height, width = tuple(self._engine.get_tensor_shape(_INPUT))[1:3]
        self.size = (height, width)

    def predict(self, batch: Float32 | Uint8) -> Float32:
        """See `Engine.predict`; of the variant `UINT8` a batch is uint8 as `imaging.sized` gives it."""
        check = checked_bytes if self._variant == UINT8 else checked_batch
        batch = check(batch, self.size, self.name)
        context, shape = self.bind(batch.shape)
        matte = np.empty(shape, np.float32)
        self.image.upload(batch, self.stream)
        self.launch(context)
        self.matte.download(matte, self.stream)
        self.stream.synchronize()
        return matte

    def bind(self, shape: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
        """Return (the context for a batch of `shape`, its output's shape), with device memory for both."""
        context = self._contexts[0 if shape[0] == 1 else -1]
        if not context.set_input_shape(_INPUT, shape):
            raise EngineError(f"Engine {self.name} was built for other batches than {shape[0]}; build it again.")
        output = tuple(context.get_tensor_shape(_OUTPUT))
        context.set_tensor_address(_INPUT, self.image.reserve(self.dtype.itemsize * int(np.prod(shape))))
        context.set_tensor_address(_OUTPUT, self.matte.reserve(_FLOAT_BYTES * int(np.prod(output))))
        return context, output

    def launch(self, context: Any) -> None:
        """Queue one run of what lies in device memory."""
        if not context.execute_async_v3(self.stream.handle.value):
            raise EngineError(f"Engine {self.name} failed to run.{self._log.told()}")

    def describe(self) -> dict[str, str]:
        """See `Engine.describe`."""
        precisions = {"fp32": gpu_float32(), "fp16": "fp16", UINT8: "fp16", "int8": "int8+fp16"}
        return {"precision": precisions[self._variant], "coverage": f"{self._engine.num_layers} TensorRT layers"}

    def close(self) -> None:
        """Free the GPU memory."""
        self._contexts, self._engine = [], None
        for held in (self.image, self.matte, self.stream):
            held.close()

    def _context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if not context.set_optimization_profile_async(profile, self.stream.handle.value):
            raise EngineError(f"Engine {self.name} has no profile {profile}; build it again.{self._log.told()}")
        self.stream.synchronize()
        return context


def _package() -> str | None:
    """Return TensorRT for RTX where this GPU is on its list, or where there is none; else TensorRT."""
    installed = [name for name in _PACKAGES if find_spec(name)]
    if "tensorrt" in installed and gpu() and not _is_for_rtx():
        return "tensorrt"
    return installed[0] if installed else None


def _module() -> ModuleType:
    """Return TensorRT, imported; where there is none, the `ImportError` names it."""
    return import_module(_package() or "tensorrt")


def _is_for_rtx() -> bool:
    found = gpu()
    return found is not None and found["compute_capability"] in _RTX_CAPABILITIES


def _runtime() -> str:
    """Return the package and its version, by whichever name it was installed."""
    told = [runtime(name) for name in _PACKAGES[_package() or "tensorrt"]]
    return next((name for name in told if " " in name), told[0])


def _device() -> str:
    """Return what the engine is filed under: TensorRT for RTX builds for any card, TensorRT for this one."""
    return "any RTX GPU" if _package() == "tensorrt_rtx" else gpu_name()


def _timing_cache() -> str:
    """Return the file for what TensorRT measured: of one version on one device, as no other may read it."""
    return f"tensorrt-timing-{sha256(f'{_runtime()} {_device()}'.encode()).hexdigest()[:8]}.cache"


def _in_precision(model_dir: StrPath, variant: str, folder: Path, options: BuildOptions) -> Path:
    """Return the path of the graph in the wanted precision; what has to be made anew for it lies in `folder`."""
    if variant == "fp32":
        return exported(model_dir, ONNX_FILE, "tensorrt-fp32")
    precision = "int8-fp16" if variant == "int8" and _strongly_typed(_module()) else variant
    return lowered_onnx(model_dir, precision, folder, options, f"tensorrt-{variant}")


def _strongly_typed(trt: ModuleType) -> bool:
    """Tell whether networks take their precision from the graph alone, which then says float16 beside int8."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _build_plan(
    path: Path, variant: str, batches: Sequence[int], cache_path: Path
) -> tuple[bytes, dict[str, int | None]]:
    """Return (serialised engine, {"layers", "batch" (None if any of `batches` and between)} of the parsed network)."""
    trt = _module()
    log, flags = new_log(trt), trt.NetworkDefinitionCreationFlag
    strongly_typed = _strongly_typed(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if strongly_typed else flags.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT cannot parse {path}: {errors[:500]}")

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if not strongly_typed:
        _allow_precision(trt, config, network, variant)
    for profile in profiles(network.get_input(0), batches):
        _add_profile(builder, config, network.get_input(0), profile)
    keeps_timings = trt.__name__ == "tensorrt"  # TensorRT for RTX measures on the card that runs the engine
    if keeps_timings:
        read_timings(config, cache_path)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build {variant} from {path.name}.{log.told()}")
    if keeps_timings:
        write_timings(config, cache_path)
    batch = network.get_input(0).shape[0]
    return bytes(plan), {"layers": network.num_layers, "batch": None if batch == -1 else batch}


def new_log(trt: ModuleType) -> Any:
    """Return a logger for TensorRT that keeps its warnings and errors for the message of the error they end in."""

    base: Any = trt.ILogger

    class Log(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.lines: deque[str] = deque(maxlen=_LOGGED_LINES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.lines.append(message.strip()[:_LOGGED_CHARACTERS])

        def told(self) -> str:
            return f" TensorRT said: {' / '.join(self.lines)}" if self.lines else ""

    return Log()


def read_timings(config: Any, path: Path) -> None:
    """Give a builder's configuration what an earlier build measured; nothing if it refuses that."""
    kept = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(kept), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def write_timings(config: Any, path: Path) -> None:
    """Keep what a build measured, if it measured anything."""
    timings = config.get_timing_cache()
    data = timings.serialize() if timings is not None else None
    if data is not None:
        write_atomically(path, bytes(data))


def _allow_precision(trt: ModuleType, config: Any, network: Any, variant: str) -> None:
    """Before strong typing: set the flags, and pin instance norms and sigmoids to float32."""
    if variant == "fp32":
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if variant == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    pinned = (trt.LayerType.REDUCE, trt.LayerType.UNARY)
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        sigmoid = layer.type == trt.LayerType.ACTIVATION and "igmoid" in layer.name
        statistic = ".layers.1" in layer.name and layer.type == trt.LayerType.ELEMENTWISE
        if layer.type in pinned or sigmoid or statistic:
            layer.precision = trt.float32


def profiles(source: Any, batches: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (smallest, best, largest) batch of each optimisation profile: one photo, and more; none for a fixed batch.

    `batches`: see `BuildOptions.batches`.
    """
    if source.shape[0] != -1:
        return []
    more = [n for n in batches if n > 1]
    return [(1, 1, 1), *([(2, more[0], more[-1])] if more else [])]


def _add_profile(builder: Any, config: Any, source: Any, batches: Sequence[int]) -> None:
    profile, rest = builder.create_optimization_profile(), tuple(source.shape)[1:]
    profile.set_shape(source.name, *((n, *rest) for n in batches))
    config.add_optimization_profile(profile)
