"""Lines out of a stream of chunks."""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator

from .problems import ProblemError


async def lines_of(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the lines of an asynchronous stream of bytes, without their ends; empty ones are passed over.

    Raises `ProblemError` at a line of more than `max_bytes`, since where the next begins is not known.
    """
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            whole = deque(lines)  # a line that was taken is not kept here
            while whole:
                _check(whole[0], max_bytes)
                if whole[0].strip():
                    yield bytes(whole.popleft())
                else:
                    whole.popleft()
        _check(rest, max_bytes)
    if rest.strip():
        yield bytes(rest)


def _check(line: bytes | bytearray, max_bytes: int) -> None:
    if len(line) > max_bytes:
        raise ProblemError(
            "body_too_large", f"lines of at most {max_bytes} bytes", f"{len(line)} or more", "Scale the image down."
        )
