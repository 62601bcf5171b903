"""The photo in a request: a raw body, or a form with one file."""

import python_multipart.exceptions
from keras_matting_api.problems import Problem
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

FILE_FIELD = "file"
_MAX_PARTS = 32


class _InMemory(MultiPartParser):
    """Bodies are small and bounded already, so photos need not touch the disk."""

    spool_max_size = 2**40
    open = False  # after the first boundary, until the last

    def on_part_begin(self):
        super().on_part_begin()
        self.open = True

    def on_end(self):
        super().on_end()
        self.open = False


async def read_photo(request):
    """Return (photo's bytes, the form's other fields as a dict) of a request; a raw body has no fields.

    Raises `Problem`: 400 for a form that cannot be parsed, 422 unless it holds one file called "file".
    """
    photo, fields = await read_form(request)
    if photo is None:
        raise Problem(
            "invalid_parameter",
            f"one file in the form, called {FILE_FIELD!r}",
            "none",
            "See /openapi.json for an example.",
        )
    return photo, fields


async def read_form(request):
    """Return (photo's bytes or None, fields): like `read_photo`, for where the photo may come otherwise."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.body(), {}
    form = await _parse(request)
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) > 1 or any(name != FILE_FIELD for name, _ in files):
        names = ", ".join(repr(name)[:40] for name, _ in files)
        raise Problem("invalid_parameter", f"one file in the form, called {FILE_FIELD!r}", f"{len(files)}: {names}")
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if len(fields) + len(files) < len(form.multi_items()):
        raise Problem("invalid_parameter", "each field of the form once", "one of them twice")
    return (await files[0][1].read() if files else None), fields


async def _parse(request):
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
    raise Problem("malformed_request", "a well-formed multipart/form-data body", received[:200])
