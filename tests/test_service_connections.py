"""Connections that misbehave below HTTP, and clients that leave: none keeps anything, or counts as a failure."""

import base64
import json
import signal
import time

import httpx
import numpy as np
import pytest
from server import script, start_server
from test_service_inputs import JPEG
from waiting import metric, wait_until

from keras_matting.photos.files import encode

PATIENCE_S = 1.5


@pytest.fixture(scope="module")
def server(one_layer_dir):
    with start_server(one_layer_dir, body_grace_s=PATIENCE_S, deadline_s=PATIENCE_S, queue=2) as server:
        yield server


def received(connection):
    """Return all that comes until the connection ends; fails if it does not."""
    answer = b""
    with connection:
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize("begun", [b"", b"GET /version HTTP/1.1\r\nHost:"], ids=["nothing", "half a header"])
def test_a_connection_that_asks_nothing_is_closed(server, begun):
    assert received(server.connect(begun)) == b""


def test_a_client_that_asks_again_in_time_keeps_its_connection(one_layer_dir):
    """Its requests take longer than the service's patience only together."""
    with start_server(one_layer_dir, body_grace_s=3) as server, server.connect() as connection:
        for _ in range(4):
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n")
            time.sleep(1.1)
            connection.sendall(b"\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                data = connection.recv(65536)
                assert data, "the connection was closed"
                answer += data
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_stream_that_goes_on_after_its_answer_is_closed(server):
    """It was too slow, and is told so; what it sends then is not wanted."""
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 999\r\n\r\n"
    with server.connect(head) as connection:
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            data = connection.recv(65536)
            assert data, answer
            answer += data
        assert b"slow_body" in answer
        connection.settimeout(0.2)
        wait_until(lambda: is_closed_at_a_byte(connection))


def is_closed_at_a_byte(connection):
    """Send a byte; tell whether the other end has closed."""
    try:
        connection.sendall(b" ")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_client_that_does_not_take_its_answer_gives_up_its_place(server):
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    line = json.dumps({"id": "a", "image": base64.b64encode(encode(noise, ".jpg")).decode()}).encode() + b"\n"
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n"
    stuck = [server.connect(head % (6 * len(line)) + 6 * line, buffer_bytes=4096) for _ in range(2)]
    wait_until(lambda: metric(server, "keras_matting_admitted") == 2)
    wait_until(lambda: metric(server, "keras_matting_admitted") == 0)
    for connection in stuck:
        connection.close()


def test_a_slow_reader_gets_all_of_a_large_answer(one_layer_dir):
    """The service's kernel takes little of the answer, so that the service has to wait for its reader."""
    code = (
        "import socket; create = socket.create_server\n"
        "def of_small_buffers(*given, **options):\n"
        "    listener = create(*given, **options)\n"
        "    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)\n"
        "    return listener\n"
        "socket.create_server = of_small_buffers\n"
    )
    noise = encode(np.random.default_rng(0).integers(0, 255, (800, 800, 3), np.uint8), ".jpg")
    head = b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with (
        start_server(one_layer_dir, script=code + script(), deadline_s=3) as server,
        server.connect(head % len(noise) + noise, buffer_bytes=2**17) as connection,
    ):
        answer = connection.recv(65536)
        until = time.monotonic() + 5
        while data := connection.recv(65536):
            answer += data
            time.sleep(0.2 if time.monotonic() < until else 0)
    assert answer.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 100_000,
        b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no HTTP", "no host", "two lengths", "other encoding", "long header", "broken chunk"],
)
def test_broken_framing_is_a_problem_document(server, request_):
    head, _, body = received(server.connect(request_)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("malformed_request", 400)
    assert f"X-Request-ID: {problem['request_id']}".lower().encode() in head.lower()


def test_an_upgrade_is_not_taken(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert httpx.get(f"{server.url}/version", headers={**headers, "Sec-WebSocket-Key": "a" * 22 + "=="}).is_success


def test_a_client_that_left_is_no_failure_of_the_service(one_layer_dir):
    with start_server(one_layer_dir) as server:
        server.connect(b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc").close()
        wait_until(lambda: metric(server, "keras_matting_requests_total{"))
        wait_until(lambda: server.logged("request"))
        assert server.logged("request")[0]["status"] == 499
        assert not server.logged("unexpected")
        assert metric(server, 'keras_matting_rejected_total{code="internal"}') == 0


def test_what_clients_invent_makes_no_new_metrics(server):
    other = 'keras_matting_requests_total{method="other",route="none",status="404"}'
    before = metric(server, other)
    for number in range(5):
        httpx.request(f"M{number}", f"{server.url}/nothing{number}")
    assert metric(server, other) == before + 5
    text = httpx.get(f"{server.url}/metrics").text
    assert "M1" not in text
    assert "nothing1" not in text


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/matte?output=mask", "/v1/matte"),
        ("/v2/models/m/infer", "/v2/models/{name}/infer"),
        ("/nothing", "none"),
    ],
)
def test_a_body_refused_for_its_declared_length_counts_for_what_was_asked(server, path, route):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n"
    assert received(server.connect(head.encode())).startswith(b"HTTP/1.1 413")
    assert metric(server, 'keras_matting_rejected_total{code="body_too_large"}') > 0
    counted = f'keras_matting_requests_total{{method="POST",route="{route}",status="413"}}'
    wait_until(lambda: metric(server, counted) == 1)  # once what is still sent was read


def test_every_line_of_the_log_is_json(one_layer_dir):
    with start_server(one_layer_dir) as server:
        received(server.connect(b"nonsense\r\n\r\n"))
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        httpx.post(f"{server.url}/v1/matte", content=b"nonsense", headers=form)
        server.terminate()
        server._collector.join()
        assert all("level" in line for line in server.lines), server.lines


def test_a_service_that_stood_still_does_not_blame_its_clients(one_layer_dir):
    """As on a virtual machine that moves: all of a client's patience passes while nothing runs."""
    body = JPEG + bytes(8 * 1024)
    head = b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    with start_server(one_layer_dir, body_grace_s=4) as server:
        asking, sending = server.connect(head), server.connect(head + b"\r\n" + body[:100])
        wait_until(lambda: metric(server, "keras_matting_admitted") == 1)  # now it waits for both
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(4.5)
        server.process.send_signal(signal.SIGCONT)
        for _ in range(2):  # so that it has looked at the others, who stood still, too
            assert httpx.get(f"{server.url}/healthz", timeout=30).is_success
        for connection, rest in ((asking, b"\r\n" + body), (sending, body[100:])):
            connection.sendall(rest)
            assert received(connection).startswith(b"HTTP/1.1 200")
