"""The few sessions that stay open between calls, lent to any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


_Session = TypeVar("_Session", bound=_Closable)


@dataclass
class _Lent(Generic[_Session]):
    """A session, in how many hands it is, and whether the cache has let go of it."""

    session: _Session
    users: int = 0
    is_evicted: bool = False


class SessionCache(Generic[_Session]):
    """The `size` sessions used last, each opened by `open_session(*key)` when it is first asked for.

    One that is evicted is closed at once, or, if a thread still uses it, when the last thread gives it back.
    """

    def __init__(self, open_session: Callable[..., _Session], size: int) -> None:
        self._open_session, self._size = open_session, size
        self._entries: OrderedDict[tuple[str, ...], _Lent[_Session]] = OrderedDict()  # the one used last at the end
        self._lock = threading.Lock()  # of the entries; held for moments only
        self._opening = threading.Lock()  # so that several threads do not open, or even fetch, the same model

    @contextmanager
    def lend(self, *key: str) -> Iterator[_Session]:
        """Yield the session of `key`, open; raises what `open_session` raises."""
        lent = self._borrow(key) or self._open(key)
        try:
            yield lent.session
        finally:
            self._give_back(lent)

    def _borrow(self, key: tuple[str, ...]) -> _Lent[_Session] | None:
        """Return what is there under `key` and count a user, or return None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            lent = self._entries[key]
            lent.users += 1
            return lent

    def _open(self, key: tuple[str, ...]) -> _Lent[_Session]:
        with self._opening:
            if lent := self._borrow(key):  # by a thread that came first
                return lent
            lent = _Lent(self._open_session(*key), users=1)
            with self._lock:
                self._entries[key] = lent
                idle = self._evict()
            for one in idle:
                one.session.close()
            return lent

    def _evict(self) -> list[_Lent[_Session]]:
        """Let go of what is too much; return what of it nobody uses."""
        evicted = [self._entries.popitem(last=False)[1] for _ in range(len(self._entries) - self._size)]
        for lent in evicted:
            lent.is_evicted = True
        return [lent for lent in evicted if not lent.users]

    def _give_back(self, lent: _Lent[_Session]) -> None:
        with self._lock:
            lent.users -= 1
            is_done_with = lent.is_evicted and not lent.users
        if is_done_with:
            lent.session.close()
