"""What requests carry: a photo as the raw body or in a form with one file, a JSON document, lines of JSON."""

import asyncio
import codecs
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pydantic_core
import python_multipart.exceptions
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from .negotiation import NDJSON
from .problems import ProblemError

_Result = TypeVar("_Result")
_PARSER = ThreadPoolExecutor(1, "parser")
FILE_FIELD = "file"
_LINES = (NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonl", "application/jsonlines")
_BINARY = (b"image/", b"application/octet-stream")
_MAX_PARTS = 32
_SPARE = 10_000  # of each, beyond what a request needs: they cost next to nothing, and its faults are told in detail
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class _InMemory(MultiPartParser):
    """Bodies are small and bounded already, so photos need not touch the disk."""

    spool_max_size = 2**40
    open = False  # after the first boundary, until the last

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.open = True

    def on_headers_finished(self) -> None:
        """Count a part as a file by what it is, also where it has no name: of a text the bytes would be lost."""
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        media_type = dict(part.item_headers).get(b"content-type", b"").lower()
        is_file = options.get(b"name") == FILE_FIELD.encode() or media_type.startswith(_BINARY)
        if is_file and part.content_disposition and b"filename" not in options:
            part.content_disposition += b'; filename=""'
        super().on_headers_finished()

    def on_end(self) -> None:
        super().on_end()
        self.open = False


async def read_photo(request: Request) -> tuple[bytes, dict[str, str]]:
    """Return (photo's bytes, the form's other fields as a dict) of a request; a raw body has no fields.

    Raises `ProblemError`: 400 for a form that cannot be parsed, 422 unless it holds one file called "file".
    """
    photo, fields = await read_form(request)
    if photo is None:
        raise ProblemError(
            "invalid_parameter",
            f"one file in the form, called {FILE_FIELD!r}",
            "none",
            "See /openapi.json for an example.",
        )
    return photo, fields


async def read_form(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """Return (photo's bytes or None, fields): like `read_photo`, for where the photo may come otherwise."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.body(), {}
    form = await _parse(request)
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) > 1 or any(name != FILE_FIELD for name, _ in files):
        names = ", ".join(repr(name)[:40] for name, _ in files)
        raise ProblemError(
            "invalid_parameter", f"one file in the form, called {FILE_FIELD!r}", f"{len(files)}: {names}"
        )
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if len(fields) + len(files) < len(form.multi_items()):
        raise ProblemError("invalid_parameter", "each field of the form once", "one of them twice")
    return (await files[0][1].read() if files else None), fields


def is_lines(headers: Mapping[str, str]) -> bool:
    """Tell whether a request's body is lines of JSON."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _LINES


async def in_parser(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run what parses large texts in a thread, so that probes are answered meanwhile.

    There is one, since numbers take several times their text until they are an array, and Python parses no two texts at
    a time anyway.
    """
    return await asyncio.get_running_loop().run_in_executor(_PARSER, function, *arguments)


def json_of(body: bytes, expected: str = "a JSON document", lists: int = 0, values: int = 0) -> Any:
    """Return the content of a JSON document in UTF-8, or in UTF-16 with its mark; raises `ProblemError`.

    `lists` and `values`: how many arrays and objects, and how many values in them, such a document needs. One of many
    more is not parsed, since two bytes of it may become a hundred, while nothing else runs in this process.
    """
    try:
        for mark, encoding in _MARKS.items():
            if body.startswith(mark):  # as editors and shells of Windows write it
                body = body.decode(encoding).encode()
        _check_parts(body, expected, lists, values)
        return pydantic_core.from_json(body)
    except ValueError as error:
        raise ProblemError("malformed_request", expected, str(error)[:200]) from None


def _check_parts(body: bytes, expected: str, lists: int, values: int) -> None:
    """Raise `ProblemError` where JSON has many more parts than it needs; those in its texts count, too."""
    opened, commas = body.count(b"[") + body.count(b"{"), body.count(b",")
    most = min(lists, commas // 2) + _SPARE  # what is long is numbers, of which the innermost lists have three or more
    for mark, count, allowed in (("'[' or '{'", opened, most), ("','", commas, values + _SPARE)):
        if count > allowed:
            raise ProblemError(
                "malformed_request",
                f"{expected} with at most {allowed} times {mark}",
                str(count),
                "Send what /openapi.json describes, and less of it at a time.",
            )


async def _parse(request: Request) -> FormData:
    parser = _InMemory(request.headers, request.stream(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS)
    try:
        form = await parser.parse()
        if not parser.open:
            return form
        received = "one that ends before its last boundary"  # what is missing may be a parameter
    except (MultiPartException, python_multipart.exceptions.FormParserError) as error:
        received = getattr(error, "message", None) or str(error)
    except (UnicodeError, LookupError) as error:  # a header in another encoding, or an unknown one
        received = type(error).__name__
    raise ProblemError("malformed_request", "a well-formed multipart/form-data body", received[:200])
