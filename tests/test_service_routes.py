"""The service's other addresses: batches and streams, rembg's, the Open Inference Protocol."""

import base64
import io
import json
import threading
import uuid
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from keras_matting_api.problems import ProblemError
from keras_matting_api.remote import fetch, is_public
from PIL import Image
from server import start_server
from tritonclient.utils import InferenceServerException

from keras_matting.matting import Session
from keras_matting.photos import imaging
from keras_matting.photos.files import decode


@pytest.fixture(scope="module")
def server(one_layer_dir):
    with start_server(one_layer_dir) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def session(one_layer_dir):
    return Session(one_layer_dir, "onnx-cpu")


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def item(jpeg, name=None):
    return {"id": name or str(uuid.uuid4()), "image": base64.b64encode(jpeg).decode()}


def test_a_batch_gives_what_single_requests_give(client, jpeg):
    items = [item(jpeg) for _ in range(3)]
    results = client.post("/v1/batch", params={"output": "mask"}, json={"items": items}).json()["items"]
    single = client.post("/v1/matte", params={"output": "mask"}, content=jpeg).content
    assert [result["id"] for result in results] == [one["id"] for one in items]
    assert all(base64.b64decode(result["image"]) == single for result in results)


def test_a_stream_gives_each_line_its_result(client, jpeg):
    lines = [json.dumps(item(jpeg, str(number))) for number in range(40)]
    lines[7:7] = [
        "",
        "no JSON",
        json.dumps({"id": "odd", "image": 5}),
        json.dumps({"id": "bad", "image": base64.b64encode(bytes(40)).decode()}),
    ]
    body = "\n".join(lines).encode()
    response = client.post("/v1/batch", content=body, headers={"Content-Type": "application/x-ndjson"})
    assert response.headers["content-type"] == "application/x-ndjson"
    results = [json.loads(line) for line in response.text.splitlines()]
    good = {result["id"] for result in results if result["status"] == 200}
    assert good == {str(number) for number in range(40)}
    failed = {(result["id"], result["status"]) for result in results if result["status"] != 200}
    assert failed == {(None, 400), ("odd", 422), ("bad", 415)}


def test_results_of_a_stream_come_while_it_is_being_sent(server, jpeg):
    """httpx does not read while it sends, so the request is written by hand."""
    first_came = threading.Event()

    def lines():
        yield (json.dumps(item(jpeg, "first")) + "\n").encode()
        assert first_came.wait(20)
        yield json.dumps(item(jpeg, "second")).encode()

    headers = (
        b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with server.connect(headers) as connection:
        answer = b""
        for line in lines():
            connection.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            while b'"first"' not in answer:
                data = connection.recv(65536)
                assert data, answer
                answer += data
            first_came.set()
        connection.sendall(b"0\r\n\r\n")
        while data := connection.recv(65536):
            answer += data
    assert b'"second"' in answer


def test_a_client_that_reads_while_it_sends_keeps_its_connection(server, jpeg):
    """What says that it closes, Python's own client gives up when it has read the headers, and sends the rest anew."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.putrequest("POST", "/v1/batch")
    connection.putheader("Content-Type", "application/x-ndjson")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    response = connection.getresponse()
    for name in ("first", "second"):
        line = json.dumps(item(jpeg, name)).encode() + b"\n"
        connection.send(f"{len(line):x}\r\n".encode() + line + b"\r\n")
    connection.send(b"0\r\n\r\n")
    assert {json.loads(line)["id"] for line in response} == {"first", "second"}
    used = connection.sock
    connection.request("GET", "/version")
    assert connection.getresponse().status == 200 and connection.sock is used
    connection.close()


def test_a_line_without_end_stops_the_stream_but_not_what_came_before(one_layer_dir, jpeg):
    with start_server(one_layer_dir, max_body_mib=0.1) as server, httpx.Client(base_url=server.url) as client:
        body = json.dumps(item(jpeg, "a")).encode() + b"\n" + b"x" * 400_000
        response = client.post("/v1/batch", content=body, headers={"Content-Type": "application/x-ndjson"})
        results = {result["id"]: result["status"] for result in map(json.loads, response.text.splitlines())}
        assert results == {"a": 200, None: 413}


def test_rembg_s_parameters_are_taken_from_query_and_form_alike(client, jpeg):
    plain = client.post("/api/remove", files={"file": jpeg})
    assert opened(plain.content).shape == (90, 120, 4)
    for mode in ({"params": {"om": "true"}}, {"data": {"om": "true"}}):
        assert opened(client.post("/api/remove", files={"file": jpeg}, **mode).content).shape == (90, 120)
    white = opened(client.post("/api/remove", files={"file": jpeg}, data={"bgc": "255,255,255,255"}).content)
    assert white.shape == (90, 120, 3)
    assert opened(client.post("/api/remove", files={"file": jpeg}, data={"bgc": "0,0,0,0"}).content).shape[2] == 4


def test_rembg_s_post_processing_gives_hard_edges(client, jpeg):
    mask = opened(client.post("/api/remove", files={"file": jpeg}, data={"om": "1", "ppm": "1"}).content)
    assert set(np.unique(mask)) <= {0, 255}


def test_rembg_s_alpha_matting_changes_the_edges(client, jpeg):
    pytest.importorskip("pymatting")
    options = {"om": "1", "a": "1", "af": "118", "ab": "112", "ae": "1"}
    response = client.post("/api/remove", files={"file": jpeg}, data=options)
    assert response.status_code == 200
    plain = client.post("/api/remove", files={"file": jpeg}, data={"om": "1"})
    assert not np.array_equal(opened(response.content), opened(plain.content))


def test_a_parameter_of_rembg_s_stands_in_one_place(client, jpeg):
    response = client.post("/api/remove", params={"om": "1"}, files={"file": jpeg}, data={"om": "1"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("data", [{"bgc": "red"}, {"bgc": "1,2,3,128"}, {"af": "300"}, {"ae": "-1"}, {"om": "perhaps"}])
def test_rembg_s_parameters_are_checked(client, jpeg, data):
    response = client.post("/api/remove", files={"file": jpeg}, data=data)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


def test_addresses_are_not_fetched_unless_allowed(client):
    response = client.get("/api/remove", params={"url": "https://example.com/a.jpg"})
    assert (response.status_code, response.json()["code"]) == (422, "refused_url")


def test_where_addresses_are_allowed_metadata_services_stay_closed(one_layer_dir):
    with start_server(one_layer_dir, allow_urls=1) as server:
        for url in ("https://169.254.169.254/latest/meta-data", "http://example.com/a.jpg"):
            response = httpx.get(f"{server.url}/api/remove", params={"url": url})
            assert (response.status_code, response.json()["code"]) == (422, "refused_url")
            assert "POST" in response.json()["remedy"]


def test_other_origins_are_let_in_only_if_named(one_layer_dir, client):
    origin = {"Origin": "https://shop.example"}
    assert "access-control-allow-origin" not in client.get("/version", headers=origin).headers
    with start_server(one_layer_dir, cors_origins="https://shop.example,https://other.example") as server:
        response = httpx.get(f"{server.url}/version", headers=origin)
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Server-Timing" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/a.jpg",
        "https://127.0.0.1:8000/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://10.0.0.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://user:password@example.com/",
        "file:///etc/passwd",
        "https://",
        "https://[",
        "https://a\nb/",
    ],
)
def test_private_and_metadata_addresses_are_refused(url):
    with pytest.raises(ProblemError) as caught:
        fetch(url, 1000)
    assert caught.value.code == "refused_url"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
        ("0.0.0.0", False),
    ],
)
def test_what_is_public(address, expected):
    assert is_public(address) is expected


@pytest.fixture
def triton_client(server):
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_gets_the_engine_s_mattes(triton_client, session, jpeg, binary):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("one_layer")
    metadata = triton_client.get_model_metadata("one_layer")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64, 64, 3]}]
    batch = np.stack([imaging.prepare(decode(jpeg), session.preset)] * 3).astype(np.float32)
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch, binary_data=binary)
    wanted = triton.InferRequestedOutput("matte", binary_data=binary)
    result = triton_client.infer("one_layer", [tensor], outputs=[wanted], request_id="7")
    assert np.allclose(result.as_numpy("matte"), session.predict(batch), atol=1e-5)
    assert result.get_response()["id"] == "7"


def test_triton_s_client_understands_problems(triton_client):
    with pytest.raises(InferenceServerException, match=r"^\[404\] Expected a model out of one_layer; received 'u3net'"):
        triton_client.get_model_metadata("u3net")


def tensor(**changes):
    return {"name": "image", "shape": [1, 64, 64, 3], "datatype": "FP32", "data": [0.0] * (64 * 64 * 3), **changes}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_request"),
        ({"inputs": []}, 422, "invalid_parameter"),
        ({"inputs": [tensor(name="photo")]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(datatype="UINT8")]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(shape=[1, 32, 32, 3])]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(data=[0.0])]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(data=["a"])]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(data=None)]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(data=[float("nan")] * (64 * 64 * 3))]}, 422, "invalid_parameter"),
        ({"inputs": [tensor(shape=[17, 64, 64, 3])]}, 413, "too_many_items"),
    ],
)
def test_a_bad_tensor_is_a_problem(client, body, status, code):
    content = body if isinstance(body, bytes) else json.dumps(body)
    response = client.post("/v2/models/one_layer/infer", content=content)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_wrong_shape_is_answered_with_the_one_that_fits(client):
    body = json.dumps({"inputs": [tensor(shape=[1, 32, 32, 3])]})
    problem = client.post("/v2/models/one_layer/infer", content=body).json()
    assert (problem["expected"], problem["received"]) == ("shape [N, 64, 64, 3]", "[1, 32, 32, 3]")


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e1", "99"])
def test_a_wrong_length_of_the_json_part_is_malformed(client, length):
    headers = {"Inference-Header-Content-Length": length}
    response = client.post("/v2/models/one_layer/infer", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")


def test_an_unknown_model_is_not_found_under_v2(client):
    for response in (client.get("/v2/models/u3net"), client.post("/v2/models/u3net/infer", content=b"{}")):
        assert (response.status_code, response.json()["code"]) == (404, "unknown_model")
