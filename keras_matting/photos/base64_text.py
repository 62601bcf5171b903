"""base64 as people send it: wrapped, in a `data:` URL, in the alphabet for URLs, without its padding."""

import base64
import re

_SPACE = b" \t\r\n\v\f"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_FOREIGN = re.compile(r"[^A-Za-z0-9+/_\- \t\r\n\v\f]")
_HEAD = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)


class NotBase64Error(ValueError):
    """What is wrong with a text, as a phrase."""


def decode(text: str) -> bytes:
    """Return the bytes of a base64 `text`; raises `NotBase64Error`.

    Whitespace and the head of a `data:` URL are passed over, as is padding that is missing.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    head = _HEAD.match(text)
    if head and not head[0].rstrip(", ").lower().endswith(";base64"):
        raise NotBase64Error(f"a data: URL without ;base64, {head[0][:60].strip()!r}")
    start = head.end() if head else 0
    end = len(text.rstrip("= \t\r\n\v\f"))  # "=" is padding there, and nothing elsewhere
    if foreign := _FOREIGN.search(text, start, end):
        raise NotBase64Error(f"{foreign[0]!r} as character {foreign.start() + 1} of {len(text)}")
    compact = text[start:end].encode().translate(_TO_STANDARD, _SPACE)
    if len(compact) % 4 == 1:
        raise NotBase64Error(f"{len(compact)} characters, a number that base64 never has: some are missing")
    return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
