"""The service on a Ray cluster of this machine: what its clients see when an engine dies at work."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import ROOT
from server import Server, start_server
from waiting import wait_until

from keras_matting.photos.files import encode

pytestmark = pytest.mark.long
CLIENTS, REQUESTS = 8, 400
_ENGINE = re.compile(r"Engine pid=(\d+)\).*serves\.")


def ray_python():
    """Return the interpreter that has Ray: `RAY_PYTHON`, or that of `make ray-env`."""
    python = Path(os.environ.get("RAY_PYTHON", ROOT / ".venv-ray" / "bin" / "python"))
    if not python.exists():
        pytest.skip("no .venv-ray; run make ray-env, or set RAY_PYTHON to an interpreter with ray[serve]")
    return python


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def start_cluster(model_dir, home, *arguments, **settings):
    """Run `python -m deploy.ray` and wait until it can be asked."""
    given = {"models": model_dir, "engine": "onnx-cpu", "port": free_port(), **settings}
    environment = {f"KERAS_MATTING_{name.upper()}": str(value) for name, value in given.items()}
    # Ray keeps a token in the home folder, and by default leaves out what several replicas say alike.
    environment |= {"HOME": str(home), "RAY_DEDUP_LOGS": "0"}
    # On a busy machine its proxy is not up in Ray's five seconds.
    environment |= {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120"}
    command = [ray_python(), "-m", "deploy.ray", "--cpus", "0.5", *arguments]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stderr, process.stdout = process.stdout, None
    server = Server(process)
    try:
        yield server.wait_until_ready(timeout_s=180)
    finally:
        try:
            if process.poll() is None:
                server.terminate()
        finally:
            server.end()


@pytest.fixture(scope="module")
def cluster(one_layer_dir, tmp_path_factory):
    replicas = ("--min-replicas", "2", "--max-replicas", "2")
    with start_cluster(one_layer_dir, tmp_path_factory.mktemp("home"), *replicas, queue=256) as server:
        wait_until(lambda: len(engines(server)) == 2, 60)
        yield server


def engines(server):
    """Return the process ids of all engines that ever got ready."""
    return [int(found[1]) for line in list(server.lines) if (found := _ENGINE.search(line["message"]))]


def lines_with(server, text):
    return [line for line in list(server.lines) if text in line["message"]]


def without_id(response):
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    return response.status_code, {**response.json(), "request_id": ""}


def test_problems_and_outputs_equal_the_plain_service_s(cluster, one_layer_dir, jpeg):
    with start_server(one_layer_dir) as plain:
        for body, query in ((b"hello", ""), (jpeg[:300], ""), (jpeg, "?model=zz"), (jpeg, "?output=zz")):
            here, there = (httpx.post(f"{server.url}/v1/matte{query}", content=body) for server in (cluster, plain))
            assert without_id(here) == without_id(there)
        here, there = (httpx.post(f"{server.url}/v1/matte", content=jpeg) for server in (cluster, plain))
        assert here.status_code == 200
        assert here.content == there.content
        for path in ("/v1/models", "/v1/engine"):
            assert httpx.get(cluster.url + path).json() == httpx.get(plain.url + path).json()


def test_prepared_photos_and_streams_are_served_too(cluster, jpeg):
    tensor = {"name": "image", "shape": [2, 64, 64, 3], "datatype": "FP32", "data": [0.5] * (2 * 64 * 64 * 3)}
    infer = httpx.post(f"{cluster.url}/v2/models/one_layer/infer", json={"inputs": [tensor]}, timeout=30)
    assert infer.json()["outputs"][0]["shape"] == [2, 64, 64, 1]
    lines = b'{"id": "a", "image": ""}\n{"id": "b"}\n'
    stream = httpx.post(f"{cluster.url}/v1/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert sorted(json.loads(line)["status"] for line in stream.text.splitlines()) == [422, 422]


def slow_photo():
    """Return a photo of few bytes and many pixels, so that it is the engines who have the work."""
    return encode(np.zeros((1500, 1500, 3), np.uint8), ".png")


def test_no_request_is_lost_when_an_engine_is_killed_under_load(cluster):
    body, victim, answered = slow_photo(), engines(cluster)[-1], []

    def ask(number):
        if number == REQUESTS // 4:
            os.kill(victim, signal.SIGKILL)
        start = time.perf_counter()
        response = client.post(f"{cluster.url}/v1/matte", content=body)
        answered.append(time.perf_counter() - start)
        return response.status_code, hash(response.content)

    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(CLIENTS) as pool:
        start = time.perf_counter()
        answers = Counter(pool.map(ask, range(REQUESTS)))
        seconds = time.perf_counter() - start
    assert [(status, count) for (status, _), count in answers.items()] == [(200, REQUESTS)]  # and all the same
    wait_until(lambda: len(set(engines(cluster))) == 3, 60)  # Ray has put another in its place
    wait_until(lambda: lines_with(cluster, "an engine was lost"), 60)  # else the kill met no request
    print(  # noqa: T201 - pytest -s shows the figures
        f"\n{REQUESTS} requests of {CLIENTS} clients: {REQUESTS / seconds:.0f}/s, "
        f"median {1000 * np.median(answered):.0f} ms, worst {1000 * max(answered):.0f} ms; "
        f"{len(lines_with(cluster, 'an engine was lost'))} asked again"
    )


def test_a_crowd_is_told_to_come_back(one_layer_dir, tmp_path):
    body = slow_photo()
    with (
        start_cluster(one_layer_dir, tmp_path, "--max-replicas", "1", "--max-ongoing-requests", "1", queue=2) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda _: httpx.post(f"{server.url}/v1/matte", content=body, timeout=60), range(32)))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert answer.json()["code"] == "overloaded"
                assert int(answer.headers["Retry-After"]) >= 1
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.terminate() == 0
