"""What one kind of request may take of the service, so that the others are still answered."""

import base64
import json
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from keras_matting_api import remote
from keras_matting_api.problems import ProblemError
from server import post, script, start_server
from waiting import metric, wait_until

MIB = 2**20
NDJSON_HEADERS = (
    b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def admitted(server, count):
    return lambda: metric(server, "keras_matting_admitted") == count


def chunk(photo, name):
    """Return an item's line as one chunk of a body."""
    line = json.dumps({"id": name, "image": base64.b64encode(photo).decode()}).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def results_of(connection):
    """Return the results of a whole answer of JSON lines, and close."""
    answer = b""
    with connection:
        while data := connection.recv(MIB):
            answer += data
    assert answer.endswith(b"0\r\n\r\n"), answer[-99:]
    return [json.loads(line) for line in answer.split(b"\r\n") if line.startswith(b"{")]


def test_streams_share_a_bound_on_memory(one_layer_dir, jpeg, tmp_path):
    """Without it, four streams of eight lines of 12 MiB would hold more than 600 MiB."""
    hold = tmp_path / "hold"
    photo = jpeg + bytes(9 * MIB)
    sent = [0] * 4

    def send(index, connection):
        for line in range(8):
            connection.sendall(chunk(photo, f"{line}"))
            sent[index] += 1
        connection.sendall(b"0\r\n\r\n")

    with start_server(one_layer_dir, script=script(hold=hold)) as server, ThreadPoolExecutor(8) as pool:
        hold.touch()
        before = psutil.Process(server.process.pid).memory_info().rss
        connections = [server.connect(NDJSON_HEADERS) for _ in sent]
        for connection in connections:
            connection.settimeout(120)
        sending = [pool.submit(send, index, connection) for index, connection in enumerate(connections)]
        seen, still = sum(sent), 0
        while still < 4:  # seconds in which the service took nothing more
            time.sleep(0.5)
            seen, still = sum(sent), (still + 0.5 if sum(sent) == seen else 0)
        assert not any(future.done() for future in sending)
        assert psutil.Process(server.process.pid).memory_info().rss - before < 400 * MIB
        hold.unlink()
        for results in pool.map(results_of, connections):
            assert sorted(result["id"] for result in results) == [f"{line}" for line in range(8)]
            assert {result["status"] for result in results} == {200}


def test_there_are_fewer_places_for_streams(one_layer_dir, jpeg):
    with start_server(one_layer_dir, streams=2) as server:
        streams = [server.connect(NDJSON_HEADERS) for _ in range(2)]
        wait_until(admitted(server, 2))
        answer = httpx.post(f"{server.url}/v1/batch", content=b"{}", headers={"Content-Type": "application/x-ndjson"})
        assert (answer.status_code, answer.json()["expected"]) == (503, "at most 2 streams at a time")
        assert int(answer.headers["retry-after"]) >= 1
        assert post(server, jpeg)[0] == 200
        for stream in streams:
            stream.close()
        wait_until(admitted(server, 0))


def test_a_stream_at_the_end_gives_what_it_took_and_says_so(one_layer_dir, jpeg, tmp_path):
    hold = tmp_path / "hold"
    with start_server(one_layer_dir, script=script(hold=hold), drain_s=60) as server:
        hold.touch()
        stream = server.connect(NDJSON_HEADERS + chunk(jpeg, "first") + chunk(jpeg, "second"))
        wait_until(lambda: metric(server, "keras_matting_waiting") == 1)  # the other is with the engine
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{server.url}/readyz").json()["status"] == "draining")
        stream.sendall(chunk(jpeg, "late") + b"0\r\n\r\n")
        hold.unlink()
        results = results_of(stream)
        taken = {result["id"]: result["status"] for result in results if result["id"]}
        assert taken == {"first": 200, "second": 200}
        (told,) = (result for result in results if not result["id"])
        assert (told["status"], told["problem"]["code"]) == (503, "not_ready")


ENCODING = """
import os, threading, time
from pathlib import Path
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})  # so that there is one thread to encode in
from keras_matting_api import photos
lock, now = threading.Lock(), 0
encode = photos.encode

def counted(*given):
    global now
    with lock:
        now += 1
        with open({log!r}, "a") as file:
            print(now, file=file)
    while Path({hold!r}).exists():
        time.sleep(0.01)
    with lock:
        now -= 1
    return encode(*given)

photos.encode = counted
"""


def test_clients_that_leave_do_not_leave_threads_behind(one_layer_dir, jpeg, request_bytes, tmp_path):
    """Of photos in the one thread; tensors need none, and are answered while those wait for it."""
    hold, log = tmp_path / "hold", tmp_path / "log"
    tensor = {"name": "image", "shape": [1, 64, 64, 3], "datatype": "FP32", "data": [0] * (64 * 64 * 3)}
    code = ENCODING.format(hold=str(hold), log=str(log))
    with start_server(one_layer_dir, script=code + script()) as server:
        hold.touch()
        for _ in range(4):
            with server.connect(request_bytes):
                wait_until(log.exists)
                wait_until(admitted(server, 1))
                for _ in range(5):  # after which the photo has come as far as it can
                    answer = httpx.post(f"{server.url}/v2/models/one_layer/infer", json={"inputs": [tensor]})
                    assert answer.status_code == 200
            wait_until(admitted(server, 0))
        assert log.read_text().split() == ["1"]
        hold.unlink()
        assert post(server, jpeg)[0] == 200


REFINING = """
import time
from pathlib import Path
from keras_matting.photos import refine

def slow(rgb, matte):
    while Path({hold!r}).exists():
        time.sleep(0.01)
    return rgb

refine.estimate_foreground = slow
"""


def test_plain_photos_do_not_wait_for_those_that_are_refined(one_layer_dir, jpeg, tmp_path):
    pytest.importorskip("pymatting", reason="needs pip install '.[refine]'")
    hold = tmp_path / "hold"
    hold.touch()
    code = REFINING.format(hold=str(hold))
    with start_server(one_layer_dir, script=code + script()) as server, ThreadPoolExecutor(4) as pool:
        refined = [pool.submit(post, server, jpeg, params={"foreground": "1"}) for _ in range(4)]
        wait_until(admitted(server, 4))
        assert post(server, jpeg)[0] == 200
        assert not any(future.done() for future in refined)
        hold.unlink()
        assert [future.result()[0] for future in refined] == [200] * 4


def test_the_advice_when_to_come_back_counts_photos(one_layer_dir, jpeg, tmp_path):
    hold = tmp_path / "hold"
    items = [{"id": str(index), "image": base64.b64encode(jpeg).decode()} for index in range(10)]
    with start_server(one_layer_dir, script=script(0.3, hold=hold), queue=2) as server, ThreadPoolExecutor(2) as pool:
        hold.touch()
        inside = [pool.submit(httpx.post, f"{server.url}/v1/batch", json={"items": items}, timeout=60) for _ in "12"]
        wait_until(admitted(server, 2))
        status, retry_after, _ = post(server, jpeg)
        assert status == 503 and int(retry_after) >= 5  # 20 photos of 0.3 s
        hold.unlink()
        assert [future.result().status_code for future in inside] == [200] * 2


def test_a_model_is_not_ready_before_it_is_known_and_its_folder_is_not_told(one_layer_dir, tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    with start_server(one_layer_dir, script=script(hold=hold), wait=False) as server:
        assert server._listening.wait(60)
        for path in ("/v1/engine?model=one_layer", "/v1/engine?model=other", "/v2/models/one_layer/ready"):
            assert httpx.get(f"{server.url}{path}").status_code == 503, path
        assert str(one_layer_dir.parent) not in httpx.get(f"{server.url}/v1/models").text
        hold.unlink()
        server.wait_until_ready()
        assert httpx.get(f"{server.url}/v1/engine?model=other").status_code == 404


def test_an_address_that_drips_is_given_up_after_a_time_for_the_whole(tmp_path, monkeypatch):
    """A real TLS server on this machine, which only the test counts as public."""
    certificate, key = certificate_of(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    ended = threading.Event()

    def drip(listener):
        with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            try:
                while not ended.wait(0.2):
                    connection.sendall(b"X-Drip: 1\r\n")
            except OSError:
                pass

    monkeypatch.setattr(remote, "_TIMEOUT_S", 1)
    monkeypatch.setattr(remote, "is_public", lambda address: True)
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(remote.ssl, "create_default_context", lambda: trusting)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = threading.Thread(target=drip, args=(listener,))
        dripping.start()
        failures = []

        def fetch():
            try:
                remote.fetch(f"https://localhost:{listener.getsockname()[1]}/", MIB)
            except ProblemError as problem:
                failures.append(problem.code)

        fetching = threading.Thread(target=fetch)
        fetching.start()
        fetching.join(20)
        ended.set()
        dripping.join()
        fetching.join()
    assert failures == ["refused_url"]
    assert not fetching.is_alive()


@pytest.mark.parametrize("moment", ["connected", "wrapped"])
def test_an_address_given_up_while_it_is_connected_to_is_not_spoken_to(monkeypatch, moment):
    """The server takes the connection and says nothing."""
    context = ssl.create_default_context()
    monkeypatch.setattr(remote.ssl, "create_default_context", lambda: context)
    owner, name = (socket, "create_connection") if moment == "connected" else (context, "wrap_socket")
    make = getattr(owner, name)

    def make_and_abort(*given, **options):
        made = make(*given, **options)
        connection.abort()
        return made

    monkeypatch.setattr(owner, name, make_and_abort)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = remote._Pinned("localhost", "127.0.0.1", listener.getsockname()[1], 20)
        with pytest.raises(OSError) as caught:
            connection.connect()
        connection.close()
        with listener.accept()[0] as taken:
            assert taken.recv(1) == b"", caught.value


def test_a_name_that_is_looked_up_forever_is_given_up(monkeypatch):
    found = threading.Event()
    monkeypatch.setattr(remote, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **options: found.wait(20) and [])
    try:
        with pytest.raises(ProblemError, match="a host that can be found within"):
            remote.fetch("https://example.com/a.jpg", MIB)
        assert not found.is_set()
    finally:
        found.set()


def certificate_of(folder):
    """Write a self-signed certificate for localhost; return its path and its key's."""
    import subprocess

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    return certificate, key
