"""What operators see: Prometheus metrics and one JSON line a request. Never an image, a file's name or a key."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from .worker import Worker

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)
_PACKAGE = "keras_matting"
LOGGER = f"{_PACKAGE}.service"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # each new label is kept for good
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_CONFIDENCES = (0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.899, 0.925, 0.95, 0.975, 1)  # .899: below .9, of three digits


class Metrics:
    """The service's metrics in a registry of their own, so that several applications can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._make(Counter, "requests", "Answered requests", ("route", "method", "status"))
        self._latency = self._make(Histogram, "request_seconds", "Time to the answer", ("route",), buckets=_SECONDS)
        self._phases = self._make(Histogram, "phase_seconds", "Parts of it", ("model", "phase"), buckets=_SECONDS)
        self._batches = self._make(Histogram, "batch_size", "Photos run together", ("model",), buckets=_SIZES)
        self._confidence = self._make(
            Histogram, "confidence", "How sure mattes are of themselves", ("model",), buckets=_CONFIDENCES
        )
        self._photos = self._make(Counter, "photos", "Photos that the engine computed", ("model",))
        self._rejected = self._make(Counter, "rejected", "Requests answered by a problem", ("code",))
        self._admitted = self._make(Gauge, "admitted", "Requests inside")
        self._waiting = self._make(Gauge, "waiting", "Photos that wait for an engine")
        self._ready = self._make(Gauge, "ready", "1 if the model can be asked", ("model", "engine"))
        self._seconds_per_photo: float | None = None

    def _make(
        self, kind: Callable[..., _Metric], name: str, text: str, labels: Sequence[str] = (), **options: Any
    ) -> _Metric:
        return kind(f"keras_matting_{name}", text, labels, registry=self._registry, **options)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, method if method in _METHODS else "other", status).inc()
        self._latency.labels(route).observe(seconds)

    def rejected(self, code: str) -> None:
        """Count a problem."""
        self._rejected.labels(code).inc()

    def ran(self, model: str, size: int, seconds: float) -> None:
        """Count a run of the engine."""
        self._batches.labels(model).observe(size)
        self._photos.labels(model).inc(size)
        self.paced(seconds / size)

    def paced(self, seconds_per_photo: float) -> None:
        """Count what a photo costs at present, where no engine runs in this process."""
        before = seconds_per_photo if self._seconds_per_photo is None else self._seconds_per_photo
        self._seconds_per_photo = 0.8 * before + 0.2 * seconds_per_photo

    def did(self, model: str, phases_ms: Mapping[str, float], confidence: float) -> None:
        """Count a finished photo's phases and how sure its matte is."""
        self._confidence.labels(model).observe(confidence)
        for phase, ms in phases_ms.items():
            self._phases.labels(model, phase).observe(ms / 1000)

    @property
    def seconds_per_photo(self) -> float:
        """A moving average of the engine's time for one photo; a second before anything was measured."""
        return 1.0 if self._seconds_per_photo is None else self._seconds_per_photo

    def as_text(self, worker: Worker, admitted: int) -> bytes:
        """Return everything in Prometheus' text format."""
        self._admitted.set(admitted)
        self._waiting.set(getattr(worker, "waiting", 0))
        self._ready.clear()
        for model in worker.models():
            if model["state"] == "on_demand":  # nobody has asked for it: no reason for an alarm
                continue
            self._ready.labels(model["name"], model.get("engine", "")).set(model["ready"])
        return generate_latest(self._registry)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: str) -> None:
    """Let this package's loggers write JSON lines to standard error, and other libraries' their warnings, for good."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger(_PACKAGE)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)


@contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Do as `log_to_stderr` for a while; then logging is as its caller had set it up."""
    package, root = logging.getLogger(_PACKAGE), logging.getLogger()
    handlers, level_before, propagate = package.handlers, package.level, package.propagate
    of_others, show_warning = root.handlers, warnings.showwarning
    log_to_stderr(level)
    try:
        yield
    finally:
        package.handlers, package.propagate, root.handlers = handlers, propagate, of_others
        package.setLevel(level_before)
        logging.captureWarnings(False)
        warnings.showwarning = show_warning


def log(message: str, level: int = logging.INFO, exc_info: BaseException | None = None, **fields: object) -> None:
    """Write one line, with fields."""
    logging.getLogger(LOGGER).log(level, message, exc_info=exc_info, extra={"fields": fields})
