"""The service when it is told to end: nothing that it took is lost, and nobody can hold it up."""

import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from server import post, script, start_server
from waiting import metric, wait_until

HELD_LOOP = """
import time
from pathlib import Path
from keras_matting_api.server import _Server
on_tick = _Server.on_tick

async def held(self, counter):
    ends = await on_tick(self, counter)
    if ends:
        Path({mark!r}).touch()
        while Path({mark!r}).exists():
            time.sleep(0.01)
    return ends

_Server.on_tick = held
"""


def status(server):
    return httpx.get(f"{server.url}/readyz").json()["status"]


def received_until(connection, end=None):
    """Return what comes, until it ends so or the connection does."""
    answer = b""
    while not (end and answer.endswith(end)) and (data := connection.recv(65536)):
        answer += data
    return answer


@pytest.fixture
def ending(one_layer_dir, tmp_path):
    """Return a context with a server, and one in which it has looked at its port for the last time, not closed it."""
    mark = tmp_path / "closing"

    @contextmanager
    def last_moment(server):
        server.process.send_signal(signal.SIGTERM)
        wait_until(mark.exists)
        yield
        mark.unlink()

    @contextmanager
    def start(**settings):
        with start_server(one_layer_dir, script=HELD_LOOP.format(mark=str(mark)) + script(), **settings) as server:
            yield server, last_moment

    return start


def test_readiness_ends_first_and_what_is_inside_is_finished(one_layer_dir, jpeg, tmp_path):
    hold = tmp_path / "hold"
    with (
        start_server(one_layer_dir, script=script(hold=hold), drain_s=60) as server,
        ThreadPoolExecutor(9) as pool,
    ):
        hold.touch()
        inside = [pool.submit(post, server, jpeg) for _ in range(8)]
        wait_until(lambda: metric(server, "keras_matting_admitted") == 8)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(server) == "draining")
        response = httpx.get(f"{server.url}/readyz")
        assert (response.status_code, response.headers["connection"]) == (503, "close")
        still_taken = pool.submit(post, server, jpeg)
        wait_until(lambda: metric(server, "keras_matting_admitted") == 9)
        hold.unlink()
        assert [future.result()[0] for future in (*inside, still_taken)] == [200] * 9


def test_no_request_is_lost_when_it_ends_under_load(one_layer_dir, jpeg):
    """Every request is answered, or its connection was refused: then nothing of it was taken."""
    answers = Counter()

    def work():
        while True:
            try:
                answers[post(server, jpeg)[0]] += 1
            except httpx.ConnectError:
                return

    with start_server(one_layer_dir, script=script(0.02), drain_s=0.5) as server:
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        wait_until(lambda: answers.total() > 8)
        assert server.terminate() == 0
        for worker in workers:
            worker.join()
    assert set(answers) == {200}


@pytest.mark.parametrize("sent_before", [0, 30])
@pytest.mark.parametrize("has_asked", [False, True])
def test_a_request_on_its_way_at_the_end_is_answered(ending, request_bytes, has_asked, sent_before):
    with ending() as (server, last_moment), server.connect() as client:
        if has_asked:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert received_until(client, b'{"status":"ok"}').startswith(b"HTTP/1.1 200")
        client.sendall(request_bytes[:sent_before])
        with last_moment(server):
            client.sendall(request_bytes[sent_before:])
        answer = received_until(client)
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower() and b"IEND" in answer
        assert server.process.wait(60) == 0


def test_who_connects_while_the_port_closes_is_served(ending, request_bytes):
    with ending() as (server, last_moment):
        with last_moment(server):
            client = server.connect(request_bytes)
        with client:
            assert received_until(client).startswith(b"HTTP/1.1 200")
        assert server.process.wait(60) == 0


def test_connections_that_never_ask_do_not_hold_up_the_end(ending):
    with ending(body_grace_s=90) as (server, last_moment), server.connect():
        with last_moment(server):
            late = server.connect()
        with late:
            assert server.process.wait(60) == 0


def test_a_connection_that_was_just_let_in_does_not_hold_up_the_end(one_layer_dir):
    with start_server(one_layer_dir, body_grace_s=90) as server:
        server.process.send_signal(signal.SIGSTOP)
        with server.connect():
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGCONT)
            assert server.process.wait(60) == 0


def test_a_second_signal_ends_it_at_once_whatever_is_inside(one_layer_dir, jpeg, tmp_path):
    hold = tmp_path / "hold"
    with start_server(one_layer_dir, script=script(hold=hold), drain_s=60) as server, ThreadPoolExecutor(1) as pool:
        hold.touch()
        inside = pool.submit(post, server, jpeg)
        wait_until(lambda: metric(server, "keras_matting_admitted") == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(server) == "draining")
        assert server.terminate() == 128 + signal.SIGTERM
        with pytest.raises(httpx.HTTPError):
            inside.result()


def test_a_client_that_keeps_asking_does_not_hold_up_the_end_of_a_service_that_cannot_open(one_layer_dir, tmp_path):
    hold, switch = tmp_path / "hold", tmp_path / "broken"
    hold.touch()
    with start_server(one_layer_dir, script=script(hold=hold, switch=switch), wait=False) as server:
        assert server._listening.wait(60)
        with httpx.Client(timeout=60) as client:
            assert "connection" not in client.get(f"{server.url}/healthz").headers
            switch.touch()
            hold.unlink()
            wait_until(lambda: client.get(f"{server.url}/healthz").headers.get("connection") == "close")
        assert server.process.wait(60) != 0
