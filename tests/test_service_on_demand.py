"""Models that the service offers and opens only when somebody asks: "Whole subject" beside "Clothing"."""

import httpx
import pytest
from keras_matting_api.app import create_app
from keras_matting_api.settings import ServiceSettings
from server import post, script, start_server
from waiting import metric, wait_until

from keras_matting.model_folder import Preset
from keras_matting.shipped import DEFAULT_MODEL, WHOLE_SUBJECT_MODEL

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers


@pytest.fixture
def whole_subject(one_layer_dir, renamed):
    return renamed(one_layer_dir, WHOLE_SUBJECT_MODEL)


@pytest.fixture
def rembg_server(one_layer_dir, renamed, whole_subject):
    """A service of the models "first" and `WHOLE_SUBJECT_MODEL`."""
    with start_server(one_layer_dir, models=f"{renamed(one_layer_dir, 'first')},{whole_subject}") as server:
        yield server


def described(server, name=WHOLE_SUBJECT_MODEL):
    (found,) = [model for model in httpx.get(f"{server.url}/v1/models").json()["models"] if model["name"] == name]
    return found


def matte(server, jpeg, model=WHOLE_SUBJECT_MODEL):
    return post(server, jpeg, params={"model": model})


def test_a_model_on_demand_is_opened_by_the_first_photo_that_asks(one_layer_dir, whole_subject, tmp_path, jpeg):
    hold = tmp_path / "hold"
    with start_server(one_layer_dir, script=script(hold=hold), on_demand_models=whole_subject) as server:
        assert described(server) == {
            "name": WHOLE_SUBJECT_MODEL,
            "ready": False,
            "state": "on_demand",
            "title": "Whole subject",
            "on_demand": True,
        }
        engine = httpx.get(f"{server.url}/v1/engine", params={"model": WHOLE_SUBJECT_MODEL})
        assert engine.json()["code"] == "model_loading"
        assert httpx.get(f"{server.url}/v2/models/{WHOLE_SUBJECT_MODEL}/ready").status_code == 503
        assert described(server)["state"] == "on_demand"  # looking is not asking
        assert WHOLE_SUBJECT_MODEL not in httpx.get(f"{server.url}/metrics").text

        hold.touch()  # its engine does not get through its first run
        assert matte(server, jpeg) == (503, "3", "model_loading")
        assert matte(server, jpeg) == (503, "3", "model_loading")
        assert described(server)["state"] == "loading"
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        hold.unlink()
        wait_until(lambda: described(server)["ready"], 60)
        assert matte(server, jpeg)[0] == 200
        assert f'keras_matting_ready{{engine="onnx-cpu",model="{WHOLE_SUBJECT_MODEL}"}} 1.0' in (
            httpx.get(f"{server.url}/metrics").text
        )
        assert httpx.get(f"{server.url}/v1/models").json()["default"] == "one_layer"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, WHOLE_SUBJECT_MODEL), ({"model": WHOLE_SUBJECT_MODEL}, WHOLE_SUBJECT_MODEL), ({"model": "first"}, "first")],
)
def test_rembg_s_clients_get_the_whole_subject_unless_they_name_a_model(rembg_server, jpeg, given, expected):
    photos = f'keras_matting_photos_total{{model="{expected}"}}'
    before = metric(rembg_server, photos)
    response = httpx.post(f"{rembg_server.url}/api/remove", files={"file": jpeg}, data=given, timeout=60)
    assert response.status_code == 200
    assert metric(rembg_server, photos) == before + 1


def test_others_get_the_first_model_unless_they_name_one(rembg_server, jpeg):
    answer = httpx.post(f"{rembg_server.url}/v1/matte", content=jpeg, headers={"Accept": "application/json"})
    assert answer.json()["model"] == "first"


def test_what_cannot_be_fetched_says_so_and_the_others_serve_on(one_layer_dir, tmp_path, jpeg, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "rembg"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # for this test's own requests
    with start_server(one_layer_dir, on_demand_models="modnet") as server:  # it has one source, the internet
        assert matte(server, jpeg, "modnet")[2] == "model_loading"
        wait_until(lambda: described(server, "modnet")["state"] == "unavailable", 120)
        with httpx.Client() as client:
            problem = client.post(f"{server.url}/v1/matte", params={"model": "modnet"}, content=jpeg)
        assert (problem.status_code, problem.json()["code"]) == (503, "model_unavailable")
        assert "could not be fetched: the server may have no internet" in problem.json()["detail"]
        assert int(problem.headers["Retry-After"]) >= 1
        assert any("No source has modnet.onnx" in line["message"] for line in server.lines)  # the operator's copy
        assert matte(server, jpeg, "one_layer")[0] == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.terminate() == 0


def test_a_folder_that_is_not_there_is_told_when_it_is_asked_for(one_layer_dir, tmp_path, jpeg):
    with start_server(one_layer_dir, on_demand_models=tmp_path / "nothing") as server:
        assert matte(server, jpeg, "nothing")[2] == "model_loading"
        wait_until(lambda: described(server, "nothing")["state"] == "unavailable", 120)
        assert matte(server, jpeg, "nothing")[2] == "model_unavailable"


def test_the_whole_subject_is_offered_beside_the_default_model_unless_models_are_named():
    assert ServiceSettings().models == (DEFAULT_MODEL,)
    assert ServiceSettings().models_on_demand == (WHOLE_SUBJECT_MODEL,)
    assert ServiceSettings(models="mine").models_on_demand == ()
    assert ServiceSettings(on_demand_models="").models_on_demand == ()
    assert ServiceSettings(models="mine", on_demand_models="u2net, modnet").models_on_demand == ("u2net", "modnet")


def test_a_model_that_is_served_from_the_start_is_not_offered_twice(whole_subject, one_layer_dir):
    settings = ServiceSettings(models=(str(whole_subject),), on_demand_models=(WHOLE_SUBJECT_MODEL, str(one_layer_dir)))
    listed = create_app(settings).state.worker.models()
    assert [model["name"] for model in listed] == [WHOLE_SUBJECT_MODEL, Preset.load(one_layer_dir).name]


@pytest.mark.long
def test_a_shipped_model_is_exported_at_the_start_without_tensorflow_in_the_service(one_layer_dir, renamed, jpeg):
    folder = renamed(one_layer_dir, DEFAULT_MODEL)
    for name in ("model.onnx", "export.json"):
        (folder / name).unlink()
    with start_server(folder) as server:
        assert matte(server, jpeg, DEFAULT_MODEL)[0] == 200
        assert server.logged(f"{DEFAULT_MODEL}: exporting for the engines, once")
