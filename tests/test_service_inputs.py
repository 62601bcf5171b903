"""Bad input and the service's answer to each: a problem document with a stable code, never a 5xx."""

import base64
import io
import json
import re
import zlib
from pathlib import Path

import bad_photos
import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from server import post, script, start_server
from waiting import metric, wait_until

from keras_matting.photos.files import encode

DISC = np.where((np.mgrid[:90, :120][0] - 45) ** 2 + (np.mgrid[:90, :120][1] - 60) ** 2 < 900, 1, 0)[..., None]
PHOTO = np.where(DISC, (200, 100, 50), (20, 40, 30)).astype(np.uint8)
REFUSED, ACCEPTED = bad_photos.refused(PHOTO), bad_photos.accepted(PHOTO)
JPEG = encode(PHOTO, ".jpg")
FIELD = b'--x\r\nContent-Disposition: form-data; name="output"\r\n\r\n\\ud800\r\n--x--\r\n'
TEXT_IN_PUNYCODE = "multipart/form-data; boundary=x; charset=punycode"
MIB = 2**20


@pytest.fixture(scope="module")
def server(one_layer_dir):
    with start_server(one_layer_dir, body_grace_s=1.5) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def assert_problem(response, status, code):
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    problem = response.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["expected"] in problem["detail"]


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_photo_is_refused(client, what):
    data, status, code = REFUSED[what]
    assert_problem(client.post("/v1/matte", content=data), status, code)
    assert_problem(client.post("/v1/matte", files={"file": ("shirt.png", data, "image/png")}), status, code)


def test_too_many_scans_are_told_and_cost_no_one_else_anything(client):
    """Fault: service_progressive_scans."""
    data, *_ = REFUSED["JPEG of 26,000 scans"]
    problem = client.post("/v1/matte", content=data).json()
    assert (problem["expected"], problem["received"]) == ("a JPEG of at most 200 scans", "one of more scans")
    assert client.post("/v1/matte", content=JPEG).status_code == 200


@pytest.mark.parametrize("what", ACCEPTED)
def test_an_odd_photo_is_matted(client, what):
    data, size = ACCEPTED[what]
    response = client.post("/v1/matte", content=data)
    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).size == size


@pytest.mark.parametrize("where", ["JPEG", "PNG", "PNG's text"])
def test_a_photo_is_upright_whatever_its_orientation(client, where):
    """Only for a photo whose pixels are what its orientation says: here the pixels are turned, so all differ."""
    upright = np.asarray(Image.open(io.BytesIO(client.post("/v1/matte", content=JPEG).content)))[..., :3]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter to the right, so stored turned to the left
    options = {"exif": exif}
    if where == "PNG's text":  # as ImageMagick writes it, here among others
        texts = PngInfo()
        block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        texts.add_text("Comment", "before", zip=True)
        texts.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n", zip=True)
        texts.add_text("Comment", "after")
        options = {"pnginfo": texts}
    image = Image.fromarray(PHOTO).rotate(90, expand=True)
    stored = bad_photos.saved(image, where.removesuffix("'s text"), quality=95, **options)
    turned = np.asarray(Image.open(io.BytesIO(client.post("/v1/matte", content=stored).content)))[..., :3]
    assert np.abs(turned.astype(int) - upright).mean() < 3


def test_transparent_pixels_stay_transparent(client):
    image = np.asarray(Image.open(io.BytesIO(client.post("/v1/matte", content=ACCEPTED["hidden colours"][0]).content)))
    assert image[..., 3][PHOTO[..., 0] <= 100].max() == 0


@pytest.mark.parametrize("name", [b"../../b.txt", b'"; filename="b.txt', b"a\r\nX-Evil: 1", b"a\0\xff", b"x" * 3000])
def test_the_declared_type_and_name_do_not_matter(client, name):
    """Written by hand, as HTTP libraries would quote the name."""
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: text/plain\r\n\r\n%s'
        b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = client.post("/v1/matte", content=form % (name, JPEG), headers=headers)
    assert response.status_code == 200
    assert "x-evil" not in response.headers
    assert response.headers["content-disposition"] == 'inline; filename="matte.png"'


def peak_bytes(server):
    """Return the most memory that the service ever had."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    return int(line) * 1024


@pytest.mark.parametrize(("texts", "mib"), [(1, 200), (60, 7)], ids=["one", "many"])
def test_memory_is_bounded_for_compressed_comments(one_layer_dir, texts, mib):
    text = bad_photos.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * mib * MIB, 9))
    with start_server(one_layer_dir) as server:
        assert post(server, bad_photos.text_bomb(1))[0] == 200
        before = peak_bytes(server)
        assert post(server, bad_photos.png(64, 64, *[text] * texts))[0] == 200
        assert peak_bytes(server) - before < 50 * MIB


def raw(server, request):
    """Send bytes as they are; return all of the answer."""
    with server.connect(request) as connection:
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionError:
            pass
        return answer


def test_a_body_declared_too_long_is_refused_before_it_is_read(server):
    answer = raw(server, b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_chunked_body_is_refused_when_it_gets_too_long(client):
    def endless():
        while True:
            yield bytes(MIB)

    assert_problem(client.post("/v1/matte", content=endless()), 413, "body_too_large")
    assert client.get("/readyz").status_code == 200


def test_a_slow_body_is_given_up(server):
    answer = raw(server, b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + JPEG[:10])
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"slow_body" in answer


def test_a_client_that_leaves_during_its_upload_costs_no_inference(server):
    left = 'keras_matting_requests_total{method="POST",route="/v1/matte",status="499"}'
    photos, before = metric(server, "keras_matting_photos_total"), metric(server, left)
    for _ in range(5):
        server.connect(b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + JPEG).close()
    wait_until(lambda: metric(server, left) == before + 5)
    assert metric(server, "keras_matting_photos_total") == photos
    assert metric(server, "keras_matting_admitted") == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"nothing of this kind"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n1\r\n--x--"),
        (
            "multipart/form-data; boundary=x",
            b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % n for n in range(1001))
            + b"--x--",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + JPEG + b"\r\n"
            b'--x\r\nContent-Disposition: form-data; name="output"\r\n\r\nma',
        ),
        ("multipart/form-data; boundary=x; charset=undefined", FIELD),
    ],
    ids=["no boundary", "no part", "no header", "1001 parts", "cut off", "no encoding"],
)
def test_a_form_that_cannot_be_parsed_is_malformed(client, content_type, body):
    response = client.post("/v1/matte", content=body, headers={"Content-Type": content_type})
    assert_problem(response, 400, "malformed_request")


def test_a_form_in_an_encoding_that_does_not_read_it_is_refused(client):
    response = client.post("/v1/matte", content=FIELD, headers={"Content-Type": TEXT_IN_PUNYCODE})
    # By Python 3.13 it does not fail as a text but as bytes, which are then read as Latin-1: a wrong value.
    assert response.json()["code"] in ("malformed_request", "invalid_parameter")


def test_a_giant_header_is_refused(client, server):
    assert raw(
        server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Big: " + b"a" * 100_000 + b"\r\n\r\n"
    ).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "request_",
    [
        {"files": [("file", JPEG), ("file", JPEG)]},
        {"files": {"photo": JPEG}},
        {"files": {"other": ("", b"")}, "data": {"output": "mask"}},
        {"files": {"file": JPEG}, "data": {"output": "psd"}},
        {"files": {"file": JPEG}, "data": {"outptu": "mask"}},
        {"content": JPEG, "params": {"color": "255,0,0"}},
        {"content": JPEG, "params": {"output": "on-color", "color": "256,0,0"}},
        {"content": JPEG, "params": {"refine": "perhaps"}},
        {"content": JPEG, "params": [("output", "mask"), ("output", "rgba")]},
        {"files": {"file": JPEG}, "data": {"output": "mask"}, "params": {"output": "mask"}},
        {"content": JPEG, "params": {"output": "mask", "foreground": "1"}},
    ],
    ids=[
        "two files",
        "another field",
        "no file",
        "output",
        "unknown field",
        "useless colour",
        "colour",
        "boolean",
        "twice",
        "query and form",
        "useless foreground",
    ],
)
def test_a_wrong_parameter_is_named(client, request_):
    assert_problem(client.post("/v1/matte", **request_), 422, "invalid_parameter")


@pytest.mark.parametrize("text", ["a. b", "it's. so", '\\. "'])
def test_what_was_received_is_told_whole(client, text):
    response = client.post("/v1/matte", params={"margin": text, "crop": 1}, content=JPEG)
    assert_problem(response, 422, "invalid_parameter")
    assert (response.json()["received"], response.json()["remedy"]) == (repr(text), "")


LACKING = {
    "no pymatting": "import sys; sys.modules['pymatting'] = None\n",
    "no place for what it compiles": "import sys; sys.path.insert(0, {folder!r})\n",
}


@pytest.mark.parametrize("what", LACKING)
def test_what_a_service_lacks_is_told_to_its_client_and_how_to_mend_it_to_its_owner(
    one_layer_dir, tmp_path, monkeypatch, what
):
    (tmp_path / "pymatting.py").write_text("raise RuntimeError('cannot cache function: no locator available')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the process that imports it first
    with start_server(one_layer_dir, script=LACKING[what].format(folder=str(tmp_path)) + script()) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            responses = [client.post("/v1/matte", params={name: 1}, content=JPEG) for name in ("refine", "foreground")]
            responses += [client.post("/api/remove", params={name: 1}, content=JPEG) for name in ("a", "dc")]
            responses += [batch(client, [ITEM], params={"foreground": 1})]
            for response in responses:
                assert_problem(response, 422, "not_offered")
                assert "Leave them out" in response.json()["remedy"]
                assert "pip" not in response.text and "NUMBA" not in response.text
            assert client.post("/v1/matte", content=JPEG).status_code == 200
        wait_until(lambda: any(re.search("pip install|NUMBA_CACHE_DIR", line["message"]) for line in server.lines))


@pytest.mark.parametrize("model", ["../../x", "zzmodnet", "", "/etc/passwd"])
def test_an_unknown_model_is_not_found(client, model):
    assert_problem(client.post("/v1/matte", params={"model": model}, content=JPEG), 404, "unknown_model")


def test_unknown_addresses_methods_and_formats_are_problems(client):
    assert_problem(client.get("/v1/nothing"), 404, "not_found")
    response = client.put("/v1/matte", content=JPEG)
    assert_problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]
    for accept, output in (
        ("text/html", "rgba"),
        ("image/jpeg", "rgba"),
        ("image/webp", "matte16"),
        ("*/*;q=0", "mask"),
    ):
        response = client.post("/v1/matte", params={"output": output}, content=JPEG, headers={"Accept": accept})
        assert_problem(response, 406, "not_acceptable")


def test_several_accept_lines_are_one_list(client):
    accept = [("Accept", "text/html"), ("Accept", "image/webp")]
    assert client.post("/v1/matte", content=JPEG, headers=accept).headers["content-type"] == "image/webp"


def test_an_address_with_one_slash_too_many_is_not_found_but_redirected_nowhere(client):
    for response in (client.post("/v1/matte/", content=JPEG), client.get("/v1/models/", headers={"Host": "evil"})):
        assert_problem(response, 404, "not_found")
        assert "location" not in response.headers


def batch(client, items, **options):
    body = items if isinstance(items, (bytes, str)) else json.dumps({"items": items})
    return client.post("/v1/batch", content=body, headers={"Content-Type": "application/json"}, **options)


ITEM = {"id": "a", "image": base64.b64encode(JPEG).decode()}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([{"id": "a", "image": "no base64!"}], 422, "invalid_parameter"),
        ([ITEM, ITEM], 422, "invalid_parameter"),
        ([], 422, "invalid_parameter"),
        ([{"id": "a"}], 422, "invalid_parameter"),
        ('{"items": [{"id": NaN, "image": ""}]}', 422, "invalid_parameter"),
        ("[" * 100_000, 400, "malformed_request"),
        ('{"items": ', 400, "malformed_request"),
        (b"\xff\xfe", 400, "malformed_request"),
        ([{**ITEM, "id": str(n)} for n in range(17)], 413, "too_many_items"),
    ],
    ids=["base64", "same ids", "none", "no image", "NaN", "deep", "cut off", "no UTF-8", "17"],
)
def test_a_bad_batch_is_refused(client, body, status, code):
    assert_problem(batch(client, body), status, code)


def test_a_batch_is_json_or_nothing(client):
    for accept, status in (("image/png", 406), ("application/*", 200)):
        response = client.post("/v1/batch", json={"items": [ITEM]}, headers={"Accept": accept})
        assert response.status_code == status
    stream = {"Accept": "application/json", "Content-Type": "application/x-ndjson"}
    assert_problem(client.post("/v1/batch", content=json.dumps(ITEM), headers=stream), 406, "not_acceptable")


def test_one_bad_item_fails_alone(client):
    items = [ITEM, {"id": "b", "image": base64.b64encode(b"x" * 50).decode()}, {"id": "c", "image": "%"}]
    response = batch(client, items)
    assert response.status_code == 200
    results = response.json()["items"]
    assert [(result["id"], result["status"]) for result in results] == [("a", 200), ("b", 415), ("c", 422)]
    assert results[1]["problem"]["code"] == "unsupported_format"
    assert base64.b64decode(results[0]["image"]).startswith(b"\x89PNG")


def test_without_the_key_nobody_comes_in(one_layer_dir):
    with start_server(one_layer_dir, api_key="sesame") as server, httpx.Client(base_url=server.url) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
            response = client.post("/v1/matte", content=JPEG, headers=headers)
            assert_problem(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer sesame"}, {"X-API-Key": "sesame"}):
            assert client.post("/v1/matte", content=JPEG, headers=headers).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/metrics").status_code == client.get("/healthz").status_code == 200
        assert "sesame" not in json.dumps(server.lines)


def test_a_client_beyond_its_rate_is_told_when_to_come_back(one_layer_dir):
    with start_server(one_layer_dir, client_per_minute=2) as server, httpx.Client(base_url=server.url) as client:
        responses = [client.post("/v1/matte", content=JPEG) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert 25 <= int(responses[2].headers["Retry-After"]) <= 30


def test_no_photo_touches_the_disk(one_layer_dir):
    """A form's file stays in memory, whatever its size: this service cannot write a byte into any file."""
    big = encode(np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8), ".png")
    assert len(big) > 5 * MIB
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    with start_server(one_layer_dir, script=code + script()) as server:
        form = {"files": {"file": big}, "timeout": 60}
        assert httpx.post(f"{server.url}/v1/matte", **form).status_code == 200
        assert httpx.post(f"{server.url}/api/remove", **form).status_code == 200
