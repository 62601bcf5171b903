"""One engine with one batch, timed in two ways: from host memory to host memory, and on the device alone."""

import time

import numpy as np

from keras_matting.engines.onnx import OnnxEngine, onnxruntime_module, version_of
from keras_matting.engines.onnx_tensorrt import OnnxTensorRtEngine
from keras_matting.engines.tensorrt import TensorRtEngine
from keras_matting.engines.tftrt import TfTrtEngine

_TAKES_STREAM = (1, 18)
EVENTS, WALL = "CUDA events", "wall clock, synchronised each call"


def runner(engine, batch):
    """Return what times an opened engine with a batch.

    A runner has `clock`, `host_ms(calls)`, `device_ms(calls)`, `graph_ms(calls)` (None where there is no CUDA graph),
    each a list of milliseconds, and `close()`.
    """
    if type(engine) is OnnxEngine and takes_stream():
        return _OnnxOnStream(engine, batch)
    kinds = {TensorRtEngine: _TensorRt, OnnxEngine: _Onnx, OnnxTensorRtEngine: _Onnx, TfTrtEngine: _TfTrt}
    return kinds[type(engine)](engine, batch)


def takes_stream():
    """Tell whether ONNX Runtime's CUDA provider lets Python name the stream that it computes on."""
    return version_of(onnxruntime_module()) >= _TAKES_STREAM


def wall_ms(call, calls):
    """Return the wall clock's milliseconds of each call, which ends when its work has ended."""
    milliseconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        milliseconds.append((time.perf_counter() - start) * 1000)
    return milliseconds


class _ByEvents:
    """What is timed by events on a stream that it knows."""

    clock = EVENTS

    def __init__(self, stream):
        from keras_matting.engines.cuda import Event

        self._stream, self._events = stream, [Event(), Event()]

    def _event_ms(self, launch, calls):
        start, end = self._events
        milliseconds = []
        for _ in range(calls):
            start.record(self._stream)
            launch()
            end.record(self._stream)
            milliseconds.append(end.milliseconds_since(start))
        return milliseconds


class _TensorRt(_ByEvents):
    def __init__(self, engine, batch):
        from keras_matting.engines.cuda import Graph, PinnedArray

        super().__init__(engine.stream)
        self._engine, self._graph = engine, None
        self._context, shape = engine.bind(batch.shape)
        self._image, self._matte = PinnedArray(batch.shape, batch.dtype), PinnedArray(shape)
        self._image.array[:] = batch
        self._host()  # what is done at the first run must not be recorded
        if len(batch) == 1:
            self._graph = Graph(self._stream, self._launch)

    def host_ms(self, calls):
        return wall_ms(self._host, calls)

    def device_ms(self, calls):
        return self._event_ms(self._launch, calls)

    def graph_ms(self, calls):
        return self._event_ms(self._graph.launch, calls) if self._graph else None

    def close(self):
        for held in (self._graph, self._image, self._matte, *self._events):
            if held:
                held.close()

    def _launch(self):
        self._engine.launch(self._context)

    def _host(self):
        self._engine.image.upload(self._image.array, self._stream)
        self._launch()
        self._engine.matte.download(self._matte.array, self._stream)
        self._stream.synchronize()


class _Onnx:
    """ONNX Runtime on a stream of its own, whose end the host waits for."""

    clock = WALL

    def __init__(self, engine, batch):
        from keras_matting.engines.cuda import PinnedArray

        self._held = [PinnedArray(batch.shape), PinnedArray(engine.predict(batch).shape)]
        image, matte = (held.array for held in self._held)
        image[:] = batch
        self._host, self._device = engine.bind_host(image, matte), engine.bind_device(batch)

    def host_ms(self, calls):
        return wall_ms(self._host, calls)

    def device_ms(self, calls):
        return wall_ms(self._device, calls)

    def graph_ms(self, calls):
        return None

    def close(self):
        self._host = self._device = None
        for held in self._held:
            held.close()


class _OnnxOnStream(_ByEvents):
    """ONNX Runtime's CUDA provider once more, on a stream of ours, so that events can be put around a run."""

    def __init__(self, engine, batch):
        from keras_matting.engines.cuda import Stream

        super().__init__(Stream())
        self._engine = OnnxEngine(engine.path, "cuda", {"user_compute_stream": str(self._stream.handle.value)})
        self._from_host = _Onnx(self._engine, batch)
        self._device = self._engine.bind_device(batch, waits=False)

    def host_ms(self, calls):
        return self._from_host.host_ms(calls)

    def device_ms(self, calls):
        return self._event_ms(self._device, calls)

    def graph_ms(self, calls):
        return None

    def close(self):
        self._device = None
        self._from_host.close()
        self._engine.close()
        for held in (*self._events, self._stream):
            held.close()


class _TfTrt:
    """Timed within TF-TRT's own process. TensorFlow copies through pinned memory of its own."""

    clock = WALL

    def __init__(self, engine, batch):
        self._engine, self._batch = engine, batch

    def host_ms(self, calls):
        return self._engine.times(self._batch, calls, resident=False)

    def device_ms(self, calls):
        return self._engine.times(self._batch, calls, resident=True)

    def graph_ms(self, calls):
        return None

    def close(self):
        pass


def filled(images, count):
    """Return a batch of `count` images, repeated as often as it takes."""
    return np.ascontiguousarray(np.resize(images, (count, *images.shape[1:])))
