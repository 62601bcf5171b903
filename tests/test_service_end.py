"""The service when it is told to end: nothing that it took is lost, and nobody can hold it up."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
from server import post, script, start_server


def test_readiness_ends_first_and_what_is_inside_is_finished(one_layer_dir, jpeg):
    with start_server(one_layer_dir, script=script(0.3), drain_s=1) as server, ThreadPoolExecutor(8) as pool:
        inside = [pool.submit(post, server, jpeg) for _ in range(8)]
        time.sleep(0.4)
        ended = threading.Thread(target=server.terminate)
        ended.start()
        time.sleep(0.2)
        response = httpx.get(f"{server.url}/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "draining")
        assert response.headers["connection"] == "close"
        assert post(server, jpeg)[0] == 200  # still taken
        assert [future.result()[0] for future in inside] == [200] * 8
        ended.join()
        assert server.process.returncode == 0


def test_no_request_is_lost_when_it_ends_under_load(one_layer_dir, jpeg):
    """Every request is answered, or its connection was refused: then nothing of it was taken."""
    answers, stop = Counter(), threading.Event()

    def work():
        while not stop.is_set():
            try:
                answers[post(server, jpeg)[0]] += 1
            except httpx.ConnectError:
                return

    with start_server(one_layer_dir, script=script(0.02), drain_s=0.5) as server:
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        time.sleep(0.7)
        assert server.terminate() == 0
        stop.set()
        for worker in workers:
            worker.join()
    assert set(answers) == {200}
    assert answers[200] > 8


def test_a_connection_that_has_not_asked_yet_is_served_at_the_end(one_layer_dir, request_bytes):
    with start_server(one_layer_dir) as server, server.connect() as client:
        ended = threading.Thread(target=server.terminate)
        ended.start()
        time.sleep(0.4)
        client.sendall(request_bytes)
        assert client.recv(99).startswith(b"HTTP/1.1 200")
        ended.join()
        assert server.process.returncode == 0


def test_a_connection_that_never_asks_does_not_hold_up_the_end(one_layer_dir):
    with start_server(one_layer_dir, body_grace_s=60) as server, server.connect():
        assert server.terminate() == 0


def test_who_connects_while_the_port_closes_is_served(one_layer_dir, request_bytes, tmp_path):
    """The loop is held between its last look at the port and the port's end, the moment that clients fall into."""
    mark = tmp_path / "closing"
    code = f"""
from keras_matting_api.server import _Server
on_tick = _Server.on_tick

async def held(self, counter):
    ends = await on_tick(self, counter)
    if ends:
        Path({str(mark)!r}).touch()
        time.sleep(1)
    return ends

_Server.on_tick = held
"""
    with start_server(one_layer_dir, script=code + script()) as server:
        ended = threading.Thread(target=server.terminate)
        ended.start()
        while not mark.exists():
            time.sleep(0.01)
        with server.connect() as client:
            client.sendall(request_bytes)
            assert client.recv(99).startswith(b"HTTP/1.1 200")
        ended.join()
        assert server.process.returncode == 0
