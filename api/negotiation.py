"""The media types of answers, and which one an `Accept` header asks for (RFC 9110, 12.5.1)."""

from collections.abc import Iterator, Sequence

from fastapi import Request

from .problems import ProblemError

EXTENSIONS = {"image/png": ".png", "image/webp": ".webp", "image/jpeg": ".jpg"}
JSON = "application/json"
NDJSON = "application/x-ndjson"


def formats_of(kind: str) -> tuple[str, ...]:
    """Return the media types that can hold an output of this kind, the service's favourite first."""
    if kind == "matte16":  # only PNG has 16 bits
        return ("image/png", JSON)
    if kind == "rgba":  # JPEG has no transparency
        return ("image/png", "image/webp", JSON)
    return ("image/png", "image/webp", "image/jpeg", JSON)


def choose(request: Request, offered: Sequence[str]) -> str:
    """Return the offered media type that the request likes best; raises `ProblemError` if it takes none of them."""
    accept = ", ".join(request.headers.getlist("accept"))  # several lines are one list
    ranges = list(_parse(accept or "*/*"))
    weights = {offer: _weight(offer, ranges) for offer in offered}
    best = max(offered, key=lambda offer: weights[offer])  # of equals the first: the service's favourite
    if weights[best] <= 0:
        raise ProblemError(
            "not_acceptable", f"an Accept header with one of {', '.join(offered)}", accept[:80], "Ask for one of these."
        )
    return best


def _parse(accept: str) -> Iterator[tuple[str, str, float]]:
    """Yield (type, subtype, weight) of the header's media ranges; what cannot be read is passed over."""
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind, _, subtype = media_range.partition("/")
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            yield kind, subtype, min(1.0, max(0.0, float(quality)))
        except ValueError:
            continue


def _weight(offer: str, ranges: Sequence[tuple[str, str, float]]) -> float:
    """Return the weight of the most specific range that holds the offer, 0 if none does."""
    kind, _, subtype = offer.partition("/")
    for wanted in ((kind, subtype), (kind, "*"), ("*", "*")):
        for *media_range, quality in ranges:
            if tuple(media_range) == wanted:
                return quality
    return 0.0
