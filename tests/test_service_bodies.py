"""Bodies as clients really send them (fault: wrapped_base64_and_parts_without_filename)."""

import base64
import codecs
import gzip
import json
import re

import httpx
import numpy as np
import pytest
from keras_matting_api import problems
from server import start_server
from test_service_inputs import JPEG, assert_problem

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}
WRAPPED = base64.encodebytes(JPEG).decode()
ITEM = {"id": "a", "image": WRAPPED}


@pytest.fixture(scope="module")
def client(one_layer_dir):
    with start_server(one_layer_dir, body_grace_s=3) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def plain(client):
    """The answer to the photo as a raw body."""
    return client.post("/v1/matte", content=JPEG).content


def part(disposition, content, *lines):
    head = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *lines))
    return b"--x\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


FIELD = part('name="model"', b"one_layer")  # which both addresses take
FILES = {
    "no filename": part('name="file"', JPEG),
    "with a type": part('name="file"', JPEG, "Content-Type: image/jpeg"),
    "no quotes": part("name=file", JPEG),
    "semicolon": part('name="file";', JPEG),
    "empty filename": part('name="file"; filename=""', JPEG),
    "only filename*": part("name=\"file\"; filename*=UTF-8''a%20b.jpg", JPEG),
    "type first": b"--x\r\nContent-Type: image/jpeg\r\ncontent-disposition: form-data; name=file\r\n\r\n"
    + JPEG
    + b"\r\n",
    "after a field": FIELD + part('name="file"', JPEG),
    "before a field": part('name="file"', JPEG) + FIELD,
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("address", ["/v1/matte", "/api/remove"])
def test_a_part_called_file_is_the_photo_whatever_its_headers(client, plain, address, what):
    response = client.post(address, content=FILES[what] + b"--x--\r\n", headers=FORM)
    assert response.status_code == 200, response.text
    assert response.content == plain


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (part('name="file"', JPEG) * 2, "2: 'file', 'file'"),
        (part('name="file"', JPEG) + part('name="file"; filename="b.jpg"', JPEG), "2: 'file', 'file'"),
        (part('name="photo"', JPEG, "Content-Type: image/jpeg"), "1: 'photo'"),
        (part('name="image"', JPEG, "content-type: application/octet-stream"), "1: 'image'"),
    ],
    ids=["twice", "with and without", "photo", "image"],
)
@pytest.mark.parametrize("address", ["/v1/matte", "/api/remove"])
def test_other_parts_that_are_files_are_told_by_name(client, address, parts, told):
    response = client.post(address, content=parts + b"--x--\r\n", headers=FORM)
    assert_problem(response, 422, "invalid_parameter")
    assert response.json()["received"] == told


def test_a_large_photo_without_a_filename_is_taken_whole(client):
    padded = JPEG + bytes(3 * 2**20)
    response = client.post("/v1/matte", content=part('name="file"', padded) + b"--x--\r\n", headers=FORM)
    assert response.status_code == 200, response.text


def test_base64_may_be_wrapped_or_a_data_url(client):
    items = [
        ITEM,
        {"id": "b", "image": f"data:image/jpeg;base64,{base64.urlsafe_b64encode(JPEG).decode().rstrip('=')}"},
    ]
    results = client.post("/v1/batch", json={"items": items}).json()["items"]
    assert [result["status"] for result in results] == [200, 200]
    assert results[0]["image"] == results[1]["image"]
    lines = "\r\n\r\n".join(map(json.dumps, items)) + "\r\n"
    answer = client.post("/v1/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 200]


def test_what_is_no_base64_is_told_by_its_place(client):
    response = client.post("/v1/batch", json={"items": [{"id": "a", "image": WRAPPED[:100] + "!" + WRAPPED[100:]}]})
    assert_problem(response, 422, "invalid_parameter")
    assert response.json()["received"] == f"'!' as character 101 of {len(WRAPPED) + 1}"


@pytest.mark.parametrize(
    "encoded",
    [codecs.BOM_UTF8 + json.dumps({"items": [ITEM]}).encode(), json.dumps({"items": [ITEM]}).encode("utf-16")],
    ids=["UTF-8", "UTF-16"],
)
def test_json_may_begin_with_a_byte_order_mark(client, encoded):
    response = client.post("/v1/batch", content=encoded, headers=JSON)
    assert response.status_code == 200, response.text
    half = client.post("/v1/batch", content=encoded[:-1], headers=JSON)
    assert_problem(half, 400, "malformed_request")


MANY = {
    "nested lists": "[[[[[]]]]]," * 4_000 + "0",
    "objects": "{}," * 12_000 + "0",
    "numbers": "0," * 12_000 + "0",
}


@pytest.mark.parametrize("what", MANY)
def test_json_of_more_parts_than_photos_need_is_not_parsed(client, what):
    more = f'"more": [{MANY[what]}]'
    response = client.post("/v1/batch", content=f'{{"items": [], {more}}}', headers=JSON)
    assert_problem(response, 400, "malformed_request")
    assert re.fullmatch(r"a JSON document with at most \d+ times .*", response.json()["expected"])
    lines = f'{{"id": "a", {more}}}\n{json.dumps({**ITEM, "id": "b"})}\n'
    answer = client.post("/v1/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert {(result["id"], result["status"]) for result in results} == {(None, 400), ("b", 200)}
    assert [result["line"] for result in results if result["status"] == 400] == [1]


@pytest.mark.parametrize("what", MANY)
def test_json_of_more_parts_than_a_tensor_needs_is_not_parsed(client, what):
    """Only beyond what the largest batch has, as nested as it may be."""
    shape = [16, 64, 64, 3]
    tensor = {"name": "image", "shape": shape, "datatype": "FP32", "data": np.zeros(shape).tolist()}
    address = "/v2/models/one_layer/infer"
    assert client.post(address, json={"inputs": [tensor]}).status_code == 200
    response = client.post(address, content=f'{{"inputs": [], "more": [{20 * (MANY[what] + ",")}0]}}', headers=JSON)
    assert_problem(response, 400, "malformed_request")


def test_of_what_does_not_fit_only_the_beginning_is_told():
    class Told:
        times = 0

        def __repr__(self):
            Told.times += 1
            return "x" * 50

    error = {"loc": ("body", "items"), "msg": "Input should be shorter", "input": [[Told()] * 1000] * 1000}
    problem = problems.of_validation([error])
    assert problem.received.startswith("[[xxx") and len(problem.received) <= 80
    assert Told.times < 100


@pytest.mark.parametrize("name", ["application/jsonl", "Application/X-NDJSON; charset=utf-8", "application/ndjson"])
def test_lines_have_several_names(client, name):
    content = codecs.BOM_UTF8 + (json.dumps(ITEM) + "\n").encode() * 2
    response = client.post("/v1/batch", content=content, headers={"Content-Type": name})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["status"] for line in response.text.splitlines()] == [200, 200]


@pytest.mark.parametrize("address", ["/v1/matte", "/api/remove", "/v1/batch", "/v2/models/one_layer/infer"])
def test_a_packed_body_is_refused_as_such(client, address):
    for coding in ("gzip", "br"):
        response = client.post(address, content=gzip.compress(JPEG), headers={"Content-Encoding": coding})
        assert_problem(response, 415, "unsupported_encoding")
        assert response.json()["received"] == coding
    assert client.post("/v1/matte", content=JPEG, headers={"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize("name", [None, "image/jpeg", "IMAGE/PNG; x=y", "application/octet-stream", "text/plain"])
def test_a_raw_body_may_have_any_type_or_none(client, plain, name):
    response = client.post("/v1/matte", content=JPEG, headers={} if name is None else {"Content-Type": name})
    assert response.content == plain
    chunked = client.post("/v1/matte", content=iter([JPEG[:100], JPEG[100:]]))
    assert chunked.content == plain


def test_a_forms_type_may_be_in_capitals(client, plain):
    headers = {"Content-Type": "Multipart/Form-Data; BOUNDARY=x"}
    assert client.post("/v1/matte", content=FILES["no filename"] + b"--x--\r\n", headers=headers).content == plain


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/v1/matte/", "Use /v1/matte."),
        ("//v1//matte", "Use /v1/matte."),
        ("/V1/Batch", "Use /v1/batch."),
        ("/v2/models/one_layer/infer/", "Use /v2/models/one_layer/infer."),
        ("/v1/nothing/", ""),
    ],
)
def test_an_address_that_is_nearly_right_is_named(client, path, remedy):
    response = client.post(httpx.URL(client.base_url).copy_with(raw_path=path.encode()), content=JPEG)
    assert_problem(response, 404, "not_found")
    assert (response.json()["received"], response.json()["remedy"]) == (path, remedy)
