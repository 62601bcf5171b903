"""The service when much is asked of it, and when its engine fails."""

import asyncio
import base64
import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
from keras_matting_api.batching import Batcher
from keras_matting_api.settings import ServiceSettings, read_settings
from pydantic import ValidationError
from server import post, script, start_server
from waiting import metric, wait_until

from keras_matting.errors import UsageError
from keras_matting.photos.files import encode


@pytest.mark.parametrize("clients", [1, 8, 32])
def test_every_client_is_served(one_layer_dir, jpeg, clients):
    with start_server(one_layer_dir) as server, ThreadPoolExecutor(clients) as pool:
        answers = Counter(answer[0] for answer in pool.map(lambda _: post(server, jpeg), range(64)))
        assert answers == {200: 64}
        assert metric(server, "keras_matting_admitted") == 0


def test_memory_stays_flat_over_many_requests(one_layer_dir):
    """Half a photo kept of each request would be 60 MiB; `benchmarks/service.py` has the long form."""
    body = encode(np.zeros((400, 500, 3), np.uint8), ".jpg")
    with start_server(one_layer_dir) as server, httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as pool:

        def resident_after(requests):
            answers = pool.map(
                lambda _: client.post(f"{server.url}/v1/matte", content=body).status_code, range(requests)
            )
            assert set(answers) == {200}
            return psutil.Process(server.process.pid).memory_info().rss / 2**20

        assert resident_after(200) + 30 > resident_after(200)


def test_beyond_its_queue_it_says_when_to_come_back_and_recovers(one_layer_dir, jpeg, tmp_path):
    hold = tmp_path / "busy"
    with start_server(one_layer_dir, script=script(hold=hold), queue=4) as server, ThreadPoolExecutor(24) as pool:
        hold.touch()
        answers = [pool.submit(post, server, jpeg) for _ in range(24)]
        try:
            wait_until(lambda: sum(answer.done() for answer in answers) >= 20)
            refused = [answer.result() for answer in answers if answer.done()]
        finally:
            hold.unlink()
        assert refused == [(503, "4", "overloaded")] * 20  # a second for each inside, while nothing is measured
        assert Counter(answer.result()[0] for answer in answers) == {200: 4, 503: 20}
        assert post(server, jpeg)[0] == 200


def test_a_late_answer_is_given_up(one_layer_dir, jpeg):
    with start_server(one_layer_dir, script=script(1.0), deadline_s=0.3) as server:
        status, _, code = post(server, jpeg)
        assert (status, code) == (504, "deadline_exceeded")


def test_a_client_that_left_is_not_computed(one_layer_dir, jpeg, request_bytes, tmp_path):
    hold = tmp_path / "busy"
    with start_server(one_layer_dir, script=script(hold=hold)) as server:
        hold.touch()
        connections = [server.connect(request_bytes) for _ in range(6)]
        wait_until(lambda: metric(server, "keras_matting_admitted") == 6)
        wait_until(lambda: metric(server, "keras_matting_waiting") > 0)  # so another one is in the engine
        for connection in connections:
            connection.close()
        wait_until(lambda: metric(server, "keras_matting_admitted") == 0)
        hold.unlink()
        assert post(server, jpeg)[0] == 200
        assert metric(server, "keras_matting_photos_total") == 2  # the one that ran, and the last


def test_a_failed_engine_is_opened_again(one_layer_dir, jpeg, tmp_path):
    switch = tmp_path / "broken"
    with start_server(one_layer_dir, script=script(switch=switch)) as server:
        assert post(server, jpeg)[0] == 200
        switch.touch()
        status, wait, code = post(server, jpeg)
        assert (status, code) == (503, "engine_failed")
        assert int(wait) >= 1
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        switch.unlink()
        server.wait_until_ready()
        assert post(server, jpeg)[0] == 200


def test_an_engine_that_gives_too_few_results_fails_them_alone():
    async def two_runs():
        short = [True]

        async def run(batch):
            return batch[:0] if short.pop() else batch

        async def diagnose(error):
            return error

        batcher = Batcher(run, diagnose)
        try:
            with pytest.raises(ValueError, match="0 results of 1"):
                await asyncio.wait_for(batcher.submit(np.zeros(3)), 5)
            short.append(False)
            return await asyncio.wait_for(batcher.submit(np.ones(3)), 5)
        finally:
            await batcher.close()

    assert asyncio.run(two_runs()).result.sum() == 3


def test_a_matte_that_is_no_number_is_not_answered_as_one(one_layer_dir, jpeg):
    code = (
        "from keras_matting.engines import onnx; engine = onnx.open_engine\n"
        "def of_nan(*given):\n"
        "    opened = engine(*given); predict = opened.predict\n"
        "    opened.predict = lambda batch: predict(batch) * (float('nan') if batch.any() else 1)\n"
        "    return opened\n"
        "onnx.open_engine = of_nan\n"
    )
    with start_server(one_layer_dir, script=code + script()) as server:
        assert post(server, jpeg)[::2] == (500, "inference_failed")
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_loading_is_not_ready(one_layer_dir, tmp_path):
    hold = tmp_path / "busy"
    hold.touch()
    with start_server(one_layer_dir, script=script(hold=hold), wait=False) as server:
        assert server._listening.wait(60)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/readyz").json()["status"] == "loading"
        assert post(server, b"x" * 99)[::2] == (503, "not_ready")
        hold.unlink()
        server.wait_until_ready()


def test_a_tensor_that_no_model_takes_is_refused_while_the_model_is_loading(one_layer_dir, tmp_path):
    hold = tmp_path / "busy"
    hold.touch()
    tensor = {"name": "image", "shape": [1, 2, 2, 4], "datatype": "FP32", "data": [0.0] * 16}
    with start_server(one_layer_dir, script=script(hold=hold), wait=False) as server:
        assert server._listening.wait(60)
        url = f"{server.url}/v2/models/{one_layer_dir.name}/infer"
        assert httpx.post(url, json={"inputs": [tensor]}).json()["code"] == "invalid_parameter"
        hold.unlink()
        server.wait_until_ready()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "quantum"}, "engine"),
        ({"models": "u3net"}, "u3net"),
        ({"port": "x"}, "KERAS_MATTING_PORT"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"deadline_s": "inf"}, "KERAS_MATTING_DEADLINE_S"),
        ({"api_key": ""}, "KERAS_MATTING_API_KEY"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(one_layer_dir, settings, message):
    with start_server(one_layer_dir, wait=False, **settings) as server:
        assert server.process.wait(60) == 2
        server._collector.join()
        assert message in server.lines[-1]["message"]
        assert not [line for line in server.lines if "Traceback" in line["message"]]


@pytest.mark.parametrize(
    ("key", "received"),
    [
        ("sesame\n", "one that begins or ends with white space. Store it without a line's end"),
        ("\u00a0sesame", "one that begins or ends with white space. Store it without a line's end"),
        ("sesamé", "one with other characters. Take letters and digits"),
        ("sesa\nme", "one with other characters. Take letters and digits"),
        ("", "an empty one. Set a key"),
    ],
)
def test_a_key_that_no_request_can_carry_is_refused_and_not_told(monkeypatch, key, received):
    monkeypatch.setenv("KERAS_MATTING_API_KEY", key)
    with pytest.raises(UsageError, match=r"^Expected the setting api_key \(KERAS_MATTING_API_KEY\) as: ") as caught:
        read_settings()
    assert f"; received {received}" in str(caught.value)
    with pytest.raises(ValidationError) as shown:
        ServiceSettings()
    assert "sesa" not in f"{caught.value} {shown.value}"


def test_a_key_with_signs_and_spaces_within_is_taken(one_layer_dir, jpeg):
    key = "open, sesame: ~!"
    with start_server(one_layer_dir, api_key=key) as server:
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            assert post(server, jpeg, headers=headers)[0] == 200


def test_an_engine_that_fails_from_the_start_is_an_end_and_no_endless_loading(one_layer_dir, tmp_path):
    with start_server(one_layer_dir, script=script(switch=tmp_path), wait=False) as server:
        assert server.process.wait(60) != 0
        server._collector.join()
        assert "one_layer cannot be opened: RuntimeError: the device is gone" in server.lines[-1]["message"]


def test_a_misspelt_setting_is_told(one_layer_dir):
    with start_server(one_layer_dir, api_kye="secret") as server:
        (line,) = (line["message"] for line in server.lines if "KERAS_MATTING_API_KYE" in line["message"])
        assert "no setting" in line


def test_a_port_in_use_is_one_sentence(one_layer_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start_server(one_layer_dir, wait=False, port=port) as server:
            assert server.process.wait(60) == 2
            server._collector.join()
            assert f"127.0.0.1:{port}" in server.lines[-1]["message"]


def test_logs_tell_of_requests_and_nothing_of_photos(one_layer_dir, jpeg):
    with start_server(one_layer_dir) as server:
        form = {"files": {"file": ("my-holiday.jpg", jpeg)}, "headers": {"X-Request-ID": "r1"}}
        httpx.post(f"{server.url}/v1/matte", **form)
        server.terminate()
        server._collector.join()
        (line,) = (line for line in server.logged("request") if line.get("request_id") == "r1")
        assert (line["route"], line["status"], line["method"]) == ("/v1/matte", 200, "POST")
        assert "holiday" not in json.dumps(server.lines)
        assert base64.b64encode(jpeg[:30]).decode() not in json.dumps(server.lines)
