"""A photo at an address that a client names: https, public hosts, no redirects, and never more than asked for."""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from .problems import ProblemError

POOL = ThreadPoolExecutor(8, "fetch")  # for `fetch`, which blocks
_LOOKUPS = ThreadPoolExecutor(8, "lookup")  # of names, since nothing ends one that takes long
_TIMEOUT_S = 10  # of the whole
_CHUNK = 2**16


def fetch(url: str, max_bytes: int) -> bytes:
    """Return the bytes at an https URL; raises `ProblemError` "refused_url", or "body_too_large" above `max_bytes`.

    The host is resolved once, every address of it has to be public, and the connection goes to the address that was
    checked: a name that resolves differently the second time gains nothing.
    """
    parts, host, port = _parse(url)
    until = time.monotonic() + _TIMEOUT_S
    address = _public_address(host, port, _TIMEOUT_S)
    left_s = max(0.0, until - time.monotonic())
    connection = _Pinned(host, address, port, left_s)
    watchdog = threading.Timer(left_s, connection.abort)  # the socket's own timeout is for each read
    watchdog.start()
    try:
        connection.request(
            "GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", headers={"Accept": "image/*"}
        )
        response = connection.getresponse()
        if response.status != 200:
            raise _refused("status 200 (redirects are not followed)", str(response.status))
        data = _read(response, max_bytes)
        if connection.is_aborted:
            raise _refused(f"the photo within {_TIMEOUT_S} s", "a part of it")
        return data
    except (OSError, http.client.HTTPException, ssl.SSLError) as error:
        raise _refused("an https server that answers", type(error).__name__) from None
    finally:
        watchdog.cancel()
        connection.close()


class _Pinned(http.client.HTTPSConnection):
    """A connection to one address, whose certificate has to be the host's."""

    def __init__(self, host: str, address: str, port: int, timeout_s: float) -> None:
        context = ssl.create_default_context()
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._address, self.is_aborted = address, False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None  # another one of the same connection, for `abort` alone
        self._own_context = context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        with self._lock:
            self._handle = plain.dup()
            if self.is_aborted:
                plain.close()
                raise TimeoutError
        tls = self.sock = self._own_context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        tls.do_handshake()

    def abort(self) -> None:
        """End whatever waits for the server, however slowly it answers, or keep it from beginning."""
        with self._lock:
            self.is_aborted = True
            if self._handle:
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        with self._lock:
            if self._handle:
                self._handle.close()


def _parse(url: str) -> tuple[SplitResult, str, int]:
    """Return the URL's parts, its host and its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise _refused("an https URL", "one that cannot be parsed") from None
    if parts.scheme != "https" or not parts.hostname or parts.username or not url.isprintable() or not url.isascii():
        raise _refused("an https URL without credentials", repr(parts.scheme)[:40])
    return parts, parts.hostname, port


def _public_address(host: str, port: int, timeout_s: float) -> str:
    """Return one of the host's addresses if all are public."""
    lookup = _LOOKUPS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = lookup.result(timeout_s)
    except TimeoutError:
        lookup.cancel()
        raise _refused(f"a host that can be found within {timeout_s:g} s", "another") from None
    except (OSError, UnicodeError):
        raise _refused("a host that can be found", "another") from None
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    for address in addresses:
        if not is_public(address):
            raise _refused("a public host", "a private, local or metadata address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public internet, also where IPv6 wraps an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is None and ip.version == 6 and ip in ipaddress.ip_network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast and (inner is None or is_public(str(inner)))


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise ProblemError("body_too_large", f"at most {max_bytes} bytes", "more", "Scale the image down.")
    return bytes(data)


def _refused(expected: str, received: str) -> ProblemError:
    return ProblemError("refused_url", expected, received, "POST the photo itself.")
