"""What a page of another origin can read of the service's answers (fault: cors_413)."""

import httpx
import pytest
from keras_matting_api.settings import ServiceSettings
from pydantic import ValidationError
from server import script, start_server
from waiting import wait_until

ORIGIN = "https://shop.example"
FROM_SHOP = {"Origin": ORIGIN}
MIB = 2**20
DEFECT = "from keras_matting_api.worker import LocalWorker\nLocalWorker.explain = lambda *_: 1 / 0\n"


@pytest.fixture(scope="module")
def server(one_layer_dir):
    settings = {"cors_origins": f"{ORIGIN}/, https://other.example", "max_body_mib": 1, "body_grace_s": 1.5}
    with start_server(one_layer_dir, script=DEFECT + script(), **settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def assert_readable(response, status, code=None):
    headers = response.headers
    assert (response.status_code, headers["access-control-allow-origin"]) == (status, ORIGIN), response.text
    assert "origin" in headers["vary"].lower()
    assert "x-request-id" in headers["access-control-expose-headers"].lower()
    assert headers["x-request-id"]
    assert code is None or response.json()["code"] == code


def chunks():
    for _ in range(4):
        yield bytes(MIB)


def slow(server):
    """Return the answer to a body that does not come."""
    head = f"POST /v1/matte HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nContent-Length: 1000\r\n\r\n"
    with server.connect(head.encode() + b"x") as connection:
        answer = b""
        while data := connection.recv(MIB):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return httpx.Response(int(first.split()[1]), headers=[line.split(": ", 1) for line in lines], content=body)


@pytest.mark.parametrize(
    ("status", "code", "request_"),
    [
        (413, "body_too_large", {"content": bytes(2 * MIB)}),
        (413, "body_too_large", {"content": chunks}),
        (415, "unsupported_format", {"content": b"no photo" * 9}),
        (422, "invalid_parameter", {"content": b"x", "params": {"output": "psd"}}),
        (400, "malformed_request", {"content": b"x", "headers": {"X-Big": "a" * 33_000}}),
        (404, "not_found", {"url": "/v1/nothing"}),
        (404, "unknown_model", {"content": b"x", "params": {"model": "other"}}),
        (405, "method_not_allowed", {"method": "PUT"}),
        (406, "not_acceptable", {"content": b"x", "headers": {"Accept": "text/html"}}),
        (500, "internal", {"method": "GET", "url": "/v1/engine"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_can_be_read_by_an_allowed_origin(client, status, code, request_):
    content = request_.get("content")
    given = {"method": "POST", "url": "/v1/matte", **request_, "content": content() if callable(content) else content}
    given["headers"] = FROM_SHOP | request_.get("headers", {})
    assert_readable(client.request(**given), status, code)


def test_so_can_a_body_that_is_too_slow(server):
    assert_readable(slow(server), 408, "slow_body")


def test_headers_too_long_to_be_parsed_are_answered_readably(server):
    with server.connect(
        f"GET / HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nX-Big: ".encode() + b"a" * 100_000
    ) as connection:
        answer = connection.recv(MIB).decode()
    assert answer.startswith("HTTP/1.1 400")
    assert f"Access-Control-Allow-Origin: {ORIGIN}\r\n" in answer


def test_so_can_those_who_need_a_key_or_come_too_often(one_layer_dir, jpeg):
    settings = {"cors_origins": ORIGIN, "api_key": "sesame", "client_per_minute": 1}
    with start_server(one_layer_dir, **settings) as server, httpx.Client(base_url=server.url) as client:
        assert_readable(client.post("/v1/matte", content=jpeg, headers=FROM_SHOP), 401, "unauthorized")
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
        response = client.options("/v1/matte", headers=FROM_SHOP | preflight)
        assert (response.status_code, response.headers["access-control-allow-headers"]) == (200, "x-api-key")
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["x-request-id"]
        with_key = FROM_SHOP | {"X-API-Key": "sesame"}
        assert_readable(client.post("/v1/matte", content=jpeg, headers=with_key), 200)
        assert_readable(client.post("/v1/matte", content=jpeg, headers=with_key), 429, "rate_limited")


def test_other_origins_read_nothing(client):
    response = client.post("/v1/matte", content=bytes(2 * MIB), headers={"Origin": "https://evil.example"})
    assert response.status_code == 413
    assert "access-control-allow-origin" not in response.headers


def test_problems_are_still_logged_and_counted(client, server):
    response = client.post("/v1/matte", content=bytes(2 * MIB), headers=FROM_SHOP)
    request_id = response.headers["x-request-id"]
    assert response.json()["request_id"] == request_id
    wait_until(lambda: any(line.get("request_id") == request_id for line in server.logged("request")))
    (line,) = (line for line in server.logged("request") if line["request_id"] == request_id)
    assert line["status"] == 413


def test_origins_are_taken_as_browsers_send_them():
    assert ServiceSettings(cors_origins="https://Shop.example/ , http://localhost:3000").cors_origins == (
        "https://shop.example",
        "http://localhost:3000",
    )
    for wrong in ("shop.example", "https://shop.example/page"):
        with pytest.raises(ValidationError, match="origins like https://shop.example"):
            ServiceSettings(cors_origins=wrong)
