"""TensorRT's Python API, 8.5 to 11 and TensorRT for RTX, behind one adapter: ONNX -> engine -> execution.

Precision stands in the ONNX graph (lower.py), because TensorRT 11 and TensorRT for RTX take it from nowhere else. Where
networks cannot be strongly typed (before TensorRT 9), builder flags allow the precision and the sensitive layers are
pinned to float32. Only calls by tensor name are used, which all these versions share.
"""

from importlib import import_module
from importlib.util import find_spec

import numpy as np

from keras_matting.engines.artefacts import building, built, engine_dir, exported
from keras_matting.engines.base import checked_batch, sensitive_layers
from keras_matting.errors import EngineError
from keras_matting.files import write_atomically
from keras_matting.machine import gpu, gpu_name, missing_gpu, runtime
from keras_matting.model_folder import ONNX_FILE

# TensorRT for RTX first: it also builds on machines without a GPU, for any RTX card.
_PACKAGES = {"tensorrt_rtx": "tensorrt-rtx-cu13", "tensorrt": "tensorrt"}
PLAN = "engine.plan"
_TIMING_CACHE = "tensorrt-timing.cache"
_WORKSPACE_BYTES = 2 << 30
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "12.0")
_INPUT, _OUTPUT = "image", "matte"


def unavailable_reason(variant):
    """Return why TensorRT cannot run here, or None."""
    if not (package := _package()):
        return f"neither {' nor '.join(_PACKAGES)} is installed; pip install 'keras-matting[gpu]'."
    if reason := missing_gpu():
        return reason
    if package == "tensorrt_rtx" and gpu()["compute_capability"] not in _RTX_CAPABILITIES:
        return f"TensorRT for RTX does not support {gpu_name()}; install tensorrt."
    return None


def build_unavailable_reason(variant):
    """Return why TensorRT cannot build here, or None: TensorRT for RTX needs no GPU to build."""
    if _package() == "tensorrt_rtx":
        return None
    return unavailable_reason(variant)


def build(model_dir, variant, options):
    """Build `engines/tensorrt-VARIANT/engine.plan` for any batch up to `options.max_batch`."""
    engine = f"tensorrt-{variant}"
    source = exported(model_dir, ONNX_FILE, engine)
    cache = engine_dir(model_dir, _TIMING_CACHE)
    fields = {"precision": variant, "max_batch": options.max_batch}
    with building(model_dir, engine, _runtime(), _device(), **fields) as (folder, extra):
        typed = _in_precision(source, variant, folder, options, sensitive_layers(model_dir, variant))
        plan, network = _build_plan(typed, variant, options.max_batch, cache)
        extra |= network
        if variant == "int8":
            extra |= options.calibration_fields
        (folder / PLAN).write_bytes(plan)
        if typed != source:
            typed.unlink()


def check_current(model_dir, variant):
    """Raise `EngineError` unless what `build` makes is there and fits."""
    built(model_dir, f"tensorrt-{variant}", _runtime(), _device())


def open_engine(model_dir, variant):
    """Load a built engine on the GPU."""
    folder = built(model_dir, f"tensorrt-{variant}", _runtime(), _device())
    return TensorRtEngine(folder, variant)


class TensorRtEngine:
    """A deserialised engine with its execution context, on one CUDA stream."""

    def __init__(self, folder, variant):
        from keras_matting.engines.cuda import Buffer, Stream

        trt = import_module(_package())
        self.name, self.path, self._variant = f"tensorrt-{variant}", folder, variant
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine((folder / PLAN).read_bytes())
        if self._engine is None:
            raise EngineError(f"Engine {self.name}: TensorRT cannot load {folder / PLAN}; build it again.")
        self._context = self._engine.create_execution_context()
        self._stream, self._image, self._matte = Stream(), Buffer(), Buffer()
        self.size = tuple(self._engine.get_tensor_shape(_INPUT))[1:3]

    def predict(self, batch):
        """See `Engine.predict`."""
        batch = checked_batch(batch, self.size, self.name)
        if not self._context.set_input_shape(_INPUT, batch.shape):
            raise EngineError(f"Engine {self.name} was built for smaller batches than {len(batch)}; build it again.")
        matte = np.empty(tuple(self._context.get_tensor_shape(_OUTPUT)), np.float32)
        self._image.upload(batch, self._stream)
        self._context.set_tensor_address(_INPUT, self._image.address.value)
        self._context.set_tensor_address(_OUTPUT, self._matte.reserve(matte.nbytes))
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise EngineError(f"Engine {self.name} failed to run; see TensorRT's message above.")
        self._matte.download(matte, self._stream)
        self._stream.synchronize()
        return matte

    def describe(self):
        """See `Engine.describe`."""
        return {"precision": self._variant, "coverage": f"{self._engine.num_layers} TensorRT layers"}

    def close(self):
        """Free the GPU memory."""
        self._context = self._engine = None
        for held in (self._image, self._matte, self._stream):
            held.close()


def _package():
    return next((name for name in _PACKAGES if find_spec(name)), None)


def _runtime():
    return runtime(_PACKAGES[_package()])


def _device():
    """Return what the engine is filed under: TensorRT for RTX builds for any card, TensorRT for this one."""
    return "any RTX GPU" if _package() == "tensorrt_rtx" else gpu_name()


def _in_precision(source, variant, folder, options, kept):
    """Return the path of the graph in the wanted precision: `source` itself for fp32; int8 leaves out `kept`."""
    if variant == "fp32":
        return source
    from keras_matting.engines import lower

    target = folder / f"{variant}.onnx"
    if variant == "fp16":
        lower.to_float16(source, target)
    else:
        lower.to_int8(source, target, options.calibration_for("tensorrt-int8"), kept)
    return target


def _build_plan(path, variant, max_batch, cache_path):
    """Return (serialised engine, {"layers", "batch" (None if any up to `max_batch`)} of the parsed network)."""
    trt = import_module(_package())
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    strongly_typed = hasattr(flags, "STRONGLY_TYPED")
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if strongly_typed else flags.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT cannot parse {path}: {errors[:500]}")

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if not strongly_typed:
        _allow_precision(trt, config, network, variant)
    _add_profile(builder, config, network.get_input(0), max_batch)
    keeps_timings = trt.__name__ == "tensorrt"  # TensorRT for RTX measures on the card that runs the engine
    if keeps_timings:
        timing = config.create_timing_cache(cache_path.read_bytes() if cache_path.is_file() else b"")
        config.set_timing_cache(timing, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build {variant} from {path}; see its message above.")
    if keeps_timings:
        write_atomically(cache_path, bytes(config.get_timing_cache().serialize()))
    batch = network.get_input(0).shape[0]
    return bytes(plan), {"layers": network.num_layers, "batch": None if batch == -1 else batch}


def _allow_precision(trt, config, network, variant):
    """Before strong typing: set the flag, and pin instance norms and sigmoids to float32."""
    if variant == "fp32":
        return
    config.set_flag(trt.BuilderFlag.FP16 if variant == "fp16" else trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    pinned = (trt.LayerType.REDUCE, trt.LayerType.UNARY)
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        sigmoid = layer.type == trt.LayerType.ACTIVATION and "igmoid" in layer.name
        statistic = ".layers.1" in layer.name and layer.type == trt.LayerType.ELEMENTWISE
        if layer.type in pinned or sigmoid or statistic:
            layer.precision = trt.float32


def _add_profile(builder, config, source, max_batch):
    if source.shape[0] != -1:
        return
    profile, rest = builder.create_optimization_profile(), tuple(source.shape)[1:]
    profile.set_shape(source.name, (1, *rest), (max(1, max_batch // 2), *rest), (max_batch, *rest))
    config.add_optimization_profile(profile)
