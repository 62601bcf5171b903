"""Who may come in: API keys, a rate for each client, and a bound on requests inside."""

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from fastapi import Request

from .problems import ProblemError

_REMEMBERED_CLIENTS = 10_000


class Admission:
    """Bounds how many of `what` are inside. `seconds_per_photo()` makes the advice when to come back truthful."""

    def __init__(self, what: str, limit: int, seconds_per_photo: Callable[[], float]) -> None:
        self._what, self._limit, self._seconds_per_photo = what, limit, seconds_per_photo
        self.inside = 0
        self._more_photos = 0

    @contextmanager
    def photos(self, count: int) -> Iterator[None]:
        """Count the photos of a request that has several, so that the advice knows of them."""
        self._more_photos += count - 1
        try:
            yield
        finally:
            self._more_photos -= count - 1

    def __enter__(self) -> None:
        if self.inside >= self._limit:
            seconds = max(1, math.ceil((self.inside + self._more_photos) * self._seconds_per_photo()))
            raise ProblemError(
                "overloaded", f"at most {self._limit} {self._what} at a time", "one more", "Come back.", seconds
            )
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


class Rate:
    """A token bucket for each client: `per_minute` requests, which may come at once; 0 is no limit."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: (tokens, when)

    def take(self, client: str) -> None:
        """Count a request; raises `ProblemError` with the seconds until the next token if the client has none left."""
        if not self._per_minute:
            return
        now = self._clock()
        tokens, when = self._buckets.pop(client, (self._per_minute, now))
        tokens = min(self._per_minute, tokens + (now - when) * self._per_minute / 60)
        self._buckets[client] = (max(0, tokens - 1) if tokens >= 1 else tokens, now)
        while len(self._buckets) > _REMEMBERED_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            seconds = max(1, math.ceil((1 - tokens) * 60 / self._per_minute))
            raise ProblemError(
                "rate_limited", f"at most {self._per_minute} requests a minute", "one more", "Come back.", seconds
            )


async def check_key(request: Request) -> None:
    """Raise `ProblemError` unless the request carries the API key, if one is set."""
    key = request.app.state.settings.api_key
    if key is None:
        return
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode(), key.get_secret_value().encode()):
        received = "another" if given else "none"
        raise ProblemError(
            "unauthorized", "an API key", received, "Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
        )


async def admit(request: Request) -> AsyncIterator[None]:
    """Count the request in until it is answered: a FastAPI dependency, resolved before the body is read."""
    await check_key(request)
    state = request.app.state
    state.rate.take(request.client.host if request.client else "")
    with state.admission:
        yield
