"""The sockets at which the service listens."""

import errno
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from keras_matting.errors import UsageError

Address: TypeAlias = tuple[socket.AddressFamily, Any]  # as `socket.getaddrinfo` gives it
_BACKLOG = 2048
_TRIES = 5  # for a port that is free at every host, where any will do


def listeners_at(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return listening sockets at all hosts and one port; raises `UsageError` where that is impossible.

    A name is listened at with every address that it has here. `::` takes IPv4 too, where the system can, unless an
    IPv4 host is given besides. Port 0 is one that is free at all.
    """
    addresses = [addresses_of(host, port) for host in dict.fromkeys(hosts)]
    for tries_left in reversed(range(_TRIES)):
        listeners: list[socket.socket] = []
        try:
            for host, found in zip(dict.fromkeys(hosts), addresses, strict=True):
                _listen(host, found, port, listeners, has_ipv4=any(map(_is_ipv4, addresses)))
            return listeners
        except OSError as error:
            for listener in listeners:
                listener.close()
            if not (tries_left and port == 0 and error.errno == errno.EADDRINUSE and listeners):
                raise _refusal(host, port, error) from None
    raise AssertionError  # the last try returned or raised


def addresses_of(host: str, port: int) -> list[Address]:
    """Return the (family, address) pairs of a host; raises `UsageError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _refusal(host, port, error) from None
    return list(dict.fromkeys((family, address) for family, *_, address in found))


def _is_ipv4(addresses: Sequence[Address]) -> bool:
    return any(family == socket.AF_INET for family, _ in addresses)


def _listen(host: str, addresses: Sequence[Address], port: int, listeners: list[socket.socket], has_ipv4: bool) -> None:
    """Add a host's sockets to `listeners`; of a name with several addresses, those that there are."""
    before = len(listeners)
    failure: OSError | None = None
    for family, address in addresses:
        port = listeners[0].getsockname()[1] if listeners else port
        both = family == socket.AF_INET6 and address[0] == "::" and not has_ipv4 and socket.has_dualstack_ipv6()
        try:
            listeners.append(
                socket.create_server(
                    (address[0], port, *address[2:]), family=family, backlog=_BACKLOG, dualstack_ipv6=both
                )
            )
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            failure = error
    if failure and len(listeners) == before:
        raise failure


def _refusal(host: str, port: int, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "Use another --port." if getattr(error, "errno", None) == errno.EADDRINUSE else "Use another --host."
    return UsageError(f"Expected a free address; received {host}:{port}: {reason}. {remedy}")
