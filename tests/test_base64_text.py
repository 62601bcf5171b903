import base64
import re

import pytest

from keras_matting.photos import base64_text
from keras_matting.photos.base64_text import NotBase64Error

DATA = bytes(range(256)) + b"\xfb\xff\xfe"
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
        f"\n {TEXT[:9]} \t{TEXT[9:]}\n",
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;charset=utf-8;BASE64,\n{TEXT}\n",
        f"data:;base64,{base64.urlsafe_b64encode(DATA).decode()}",
        base64.b64encode(DATA + b"x").decode().rstrip("="),
        base64.b64encode(DATA + b"xy").decode().rstrip("="),
        base64.b64encode(DATA + b"x").decode() + "==\n",
    ],
    ids=["plain", "wrapped", "CRLF", "spaces", "url-safe", "data", "DATA", "data url-safe", "no ==", "no =", "more ="],
)
def test_base64_is_read_as_people_send_it(text):
    assert base64_text.decode(text).removeprefix(DATA) in (b"", b"x", b"xy")
    assert base64_text.decode(text).startswith(DATA)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("%", "'%' as character 1 of 1"),
        (f"{TEXT[:40]}!{TEXT}", f"'!' as character 41 of {len(TEXT) + 41}"),
        (f"b'{TEXT}'", f'"\'" as character 2 of {len(TEXT) + 3}'),
        (f"data:image/png;base64,{TEXT[:9]}?{TEXT}", "'?' as character 32 of"),
        ("AAAA=AAA", "'=' as character 5 of 8"),
        ("ä", "'ä' as character 1 of 1"),
        ("\ufeffAAAA", r"'\ufeff' as character 1 of 5"),
        ("AAAAA", "5 characters, a number that base64 never has: some are missing"),
        ("data:image/png,AAAA", "a data: URL without ;base64, 'data:image/png,'"),
    ],
)
def test_what_is_no_base64_is_told_by_its_place(text, told):
    with pytest.raises(NotBase64Error, match=re.escape(told)):
        base64_text.decode(text)


def test_nothing_is_no_bytes():
    assert base64_text.decode("") == base64_text.decode(" \n") == b""
