"""The page's files, as they are served and as they are written."""

import asyncio
import re
from pathlib import Path

import httpx
import keras_matting_api
import pytest
from fastapi import FastAPI
from keras_matting_api import page

STATIC = Path(keras_matting_api.__file__).parent / "static"


def ask(path, method="GET", **headers):
    """Send one request to an application that is the page alone."""
    app = FastAPI()
    app.include_router(page.router)

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.request(method, f"http://test/{path}", headers=headers)

    return asyncio.run(send())


def test_the_page_s_files_come_with_their_type_and_strict_headers():
    types = {"": "text/html", "static/page.css": "text/css", "static/page.js": "text/javascript"}
    for path, media_type in {**types, "static/icon.svg": "image/svg+xml"}.items():
        response = ask(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(media_type)
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy and "http" not in policy
        assert response.headers["cache-control"] == "no-cache"
        again = ask(path, **{"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert ask(path, "HEAD").status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "%2e%2e%2fpage.py", "page.js%00.html"])
def test_only_the_page_s_own_files_are_served(name):
    assert ask(f"static/{name}").status_code == 404


def test_the_page_s_files_hold_nothing_inline_and_no_foreign_address():
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", html)
    for path in STATIC.iterdir():
        foreign = set(re.findall(r"https?://[^\s\"')]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert foreign == set(), path.name
