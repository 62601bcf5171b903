"""docs/from-rembg.md: every row of its tables is done here as it stands there."""

import io
import re
import shlex
import sys
from functools import partial
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import onnx_files
import pytest
from conftest import ROOT
from PIL import Image
from server import start_server

import keras_matting
from keras_matting import cli, matting
from keras_matting.cli import main
from keras_matting.photos.files import Photo, decode
from keras_matting.photos.refine import Thresholds
from keras_matting.weights import pretrained

PAGE = (ROOT / "docs/from-rembg.md").read_text(encoding="utf-8")
FRAMES = np.random.default_rng(0).integers(0, 255, (2, 24, 40, 3), np.uint8)


def table(heading):
    """Return {rembg's cell: our cell} of the table under a heading, without marks of code."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    return {row[0].strip(" `"): row[1].strip(" `") for row in rows}


COMMANDS, OPTIONS = table("Commands"), table("Options of `i`, `p` and `b`")
SERVE, PARAMETERS, PYTHON = table("Options of `s`"), table("HTTP: `/api/remove`"), table("Python")


def image(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def here(one_layer_dir, jpeg, tmp_path, monkeypatch, capfdbinary):
    """Run a command in a folder that has what the rows name; return its standard output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in ("in.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / path).write_bytes(jpeg)

    def here(command, stdin=b""):
        words = shlex.split(command.replace(" < in.jpg", "").replace(" > out.png", ""))
        assert words.pop(0) == "keras-matting"
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        model = [] if "--model" in words else ["--model", str(one_layer_dir)]
        capfdbinary.readouterr()
        assert main([*words, *model, "--engine", "onnx-cpu"]) == 0
        return capfdbinary.readouterr().out

    return here


def run_file(here, command, tmp_path, jpeg):
    here(command)
    assert image(tmp_path / "out.png").shape == (90, 120, 4)


def run_stream(here, command, tmp_path, jpeg):
    (tmp_path / "out.png").write_bytes(here(command, jpeg))
    assert image(tmp_path / "out.png").shape == (90, 120, 4)


def run_folder(here, command, tmp_path, jpeg):
    here(command)
    first = (tmp_path / "out/a.png").stat().st_mtime_ns
    here(command)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "out/a.png").stat().st_mtime_ns == first  # skipped


def run_frames(here, command, tmp_path, jpeg):
    here(command, FRAMES.tobytes())
    assert [image(tmp_path / f"out/00{index}.png").shape for index in range(2)] == [(24, 40, 4)] * 2


def run_frames_to_stdout(here, command, tmp_path, jpeg):
    assert here(command, FRAMES.tobytes()).count(b"\x89PNG\r\n") == 2


def parsed(here, command, tmp_path, jpeg):
    verb, arguments = cli._parse(shlex.split(command)[1:])
    assert (verb is cli.VERBS["serve"] and arguments.port == 7000) or arguments.name in pretrained.PRETRAINED


def nothing_to_move(here, command, tmp_path, jpeg):
    assert "m" not in cli.VERBS


RUN = {
    "rembg i in.jpg out.png": run_file,
    "rembg i < in.jpg > out.png": run_stream,
    "rembg p photos out": run_folder,
    "rembg b 40 24 -o out/%03d.png": run_frames,
    "rembg b 40 24": run_frames_to_stdout,
    "rembg s --port 7000": parsed,
    "rembg d u2net": parsed,
    "rembg m": nothing_to_move,
}


def test_every_row_has_its_test():
    assert list(COMMANDS) == list(RUN)
    assert list(OPTIONS) == [*SEEN, *ABSENT]
    assert list(SERVE) == [*SERVED, "-t 4", "s --no-ui"]
    assert [name.strip(" `") for row in PARAMETERS for name in row.split(",")] == list(SENT)
    assert list(PYTHON) == list(RESULTS)


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_rembg_s_does(here, tmp_path, jpeg, command):
    RUN[command](here, COMMANDS[command], tmp_path, jpeg)


def hard(picture):
    return set(np.unique(picture[..., 3])) <= {0, 255}


# What an option's output looks like beside that without it
SEEN = {
    "-m u2netp": lambda picture, plain: (picture == plain).all(),
    "-a": lambda picture, plain: picture.shape == plain.shape,
    "-a -af 200 -ab 50 -ae 4": lambda picture, plain: picture.shape == plain.shape,
    "-om": lambda picture, plain: (picture == plain[..., 3]).all(),
    "-ppm": lambda picture, plain: hard(picture) and not hard(plain),
    "-dc": lambda picture, plain: not (picture[..., :3] == plain[..., :3]).all(),
    "-vm": lambda picture, plain: picture.shape == plain.shape,
    "-bgc 255 255 255 255": lambda picture, plain: picture.shape == (90, 120, 3) and picture.mean() > 128,
    """-x '{"model_path": "own.onnx"}'""": lambda picture, plain: not (picture == plain).all(),
}
ABSENT = {"-w": "--watch", "-d": "--delete_input", "p --accept-usage-cost": "--accept-usage-cost"}


@pytest.mark.parametrize("option", SEEN)
def test_an_option_does_what_rembg_s_does(here, one_layer_dir, tmp_path, option):
    if "--refine" in OPTIONS[option] or "--foreground" in OPTIONS[option]:
        pytest.importorskip("pymatting")
    onnx_files.write(tmp_path / "own.onnx")
    own = ["--name", "own", "--out", "own", "--mean", "0.5", "--std", "0.5"]
    assert main(["from-onnx", str(tmp_path / "own.onnx"), *own]) == 0
    words = OPTIONS[option].replace("--model u2netp", f"--model {one_layer_dir}")
    here("keras-matting predict in.jpg plain.png")
    here(f"keras-matting predict in.jpg out.png {words}")
    assert SEEN[option](image(tmp_path / "out.png"), image(tmp_path / "plain.png"))


@pytest.mark.parametrize("option", ABSENT)
def test_what_is_not_here_is_said_so(option, capsys):
    assert OPTIONS[option] == "not here"
    with pytest.raises(SystemExit):
        main(["predict", "photos", ABSENT[option]])


def test_rembg_s_thresholds_say_where_the_matte_is_solved(here, one_layer_dir):
    _, arguments = cli._parse(["predict", "a.jpg", *OPTIONS["-a -af 200 -ab 50 -ae 4"].split()])
    assert cli.predict.output_options(arguments).refine == Thresholds(200 / 255, 50 / 255, 4)
    _, arguments = cli._parse(["predict", "a.jpg", "--refine-at", "200,50,4"])
    with pytest.raises(matting.UsageError, match="expected --refine, too"):
        cli.predict.output_options(arguments)


@pytest.mark.parametrize("text", ["200", "1,2,x", "256,0,1"])
def test_thresholds_that_cannot_be_read_are_told(capsys, text):
    with pytest.raises(SystemExit):
        main(["predict", "a.jpg", "--refine-at", text])
    assert "two numbers from 0 to 255 and pixels, as 240,10,10" in capsys.readouterr().err


def test_swapped_thresholds_are_told(capsys, server, jpeg):
    with pytest.raises(SystemExit):
        main(["predict", "a.jpg", "--refine", "--refine-at", "50,200,4"])
    told = capsys.readouterr().err
    assert "the foreground's not below the background's; received 0.196 and 0.784 (50 and 200 of 255)" in told
    answer = httpx.post(f"{server.url}/api/remove", files={"file": jpeg}, data={"a": "1", "af": "50", "ab": "200"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    for wrong in ((0.2, 0.8), (1.1, 0), (1, -0.1), (float("nan"), 0), (1, 0, -1)):
        with pytest.raises(matting.UsageError, match="received"):
            Thresholds(*wrong)


@pytest.mark.parametrize("place", ["params", "data"])
def test_a_parameter_of_another_address_is_not_ignored(server, jpeg, place):
    answer = httpx.post(f"{server.url}/api/remove", files={"file": jpeg}, **{place: {"crop": "true"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert "received 'crop'. POST /v1/matte takes it" in answer.json()["detail"]


SERVED = {"-p 7000": "port", "-h 0.0.0.0": "host", "-l warning": "log_level"}


@pytest.mark.parametrize("option", SERVED)
def test_an_option_of_the_server_s_is_here(option, monkeypatch):
    from keras_matting_api.settings import ServiceSettings

    ours, expected = SERVE[option], option.split()[1]
    if ours.startswith("--"):
        _, arguments = cli._parse(["serve", *ours.split()])
        assert getattr(arguments, SERVED[option]) in ([expected], int(expected) if expected.isdecimal() else None)
    else:
        monkeypatch.setenv(*ours.split("="))
        assert getattr(ServiceSettings(), SERVED[option]) == expected


@pytest.mark.parametrize("option", ["-t", "--no-ui"])
def test_an_option_of_the_server_s_is_not_here(option):
    with pytest.raises(SystemExit):
        cli._parse(["serve", option])


@pytest.fixture(scope="module")
def server(one_layer_dir):
    with start_server(one_layer_dir) as server:
        yield server


SENT = {
    "file": ({}, lambda picture: picture.shape == (90, 120, 4)),
    "url": None,
    "model": ({"model": "one_layer"}, lambda picture: picture.shape == (90, 120, 4)),
    "a": ({"a": "true"}, lambda picture: picture.shape == (90, 120, 4)),
    "af": ({"a": "1", "af": "200"}, lambda picture: picture.shape == (90, 120, 4)),
    "ab": ({"a": "1", "ab": "50"}, lambda picture: picture.shape == (90, 120, 4)),
    "ae": ({"a": "1", "ae": "4"}, lambda picture: picture.shape == (90, 120, 4)),
    "om": ({"om": "true"}, lambda picture: picture.shape == (90, 120)),
    "ppm": ({"ppm": "true"}, lambda picture: hard(picture)),
    "dc": ({"dc": "true"}, lambda picture: picture.shape == (90, 120, 4)),
    "vm": ({"vm": "true"}, lambda picture: picture.shape == (90, 120, 4)),
    "bgc": ({"bgc": "255,255,255,255"}, lambda picture: picture.shape == (90, 120, 3)),
    "extras": ({"extras": '{"x": 1}'}, lambda picture: picture.shape == (90, 120, 4)),
}
_COLOURED = ("a", "dc", "vm")


@pytest.mark.parametrize("name", SENT)
def test_a_parameter_of_the_address_is_taken(server, jpeg, name):
    url = f"{server.url}/api/remove"
    if SENT[name] is None:
        answer = httpx.get(url, params={"url": "https://example.com/a.jpg"})
        assert answer.json()["code"] == "refused_url"
        return
    fields, looks_right = SENT[name]
    if set(fields) & set(_COLOURED):
        pytest.importorskip("pymatting")
    answer = httpx.post(url, files={"file": jpeg}, data=fields, timeout=300)
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert looks_right(picture)
    if name in _COLOURED:  # the subject's own colours at soft edges
        plain = np.asarray(Image.open(io.BytesIO(httpx.post(url, files={"file": jpeg}).content)))
        assert not (picture[..., :3] == plain[..., :3]).all()


KINDS = {"rgba": (90, 120, 4), "mask": (90, 120), "on-color": (90, 120, 3)}
# The kind of each row's result; None for a session
RESULTS = {
    "remove(data)": "rgba",
    'remove(data, session=new_session("u2netp"))': "rgba",
    'new_session("u2netp")': None,
    "session.predict(img)": "mask",
    "remove(data, only_mask=True)": "mask",
    "remove(data, alpha_matting=True)": "rgba",
    "alpha_matting_foreground_threshold=200, alpha_matting_background_threshold=50, alpha_matting_erode_size=4": "rgba",
    "remove(data, decontaminate=True)": "rgba",
    "remove(data, post_process_mask=True)": "rgba",
    "remove(data, bgcolor=(255, 255, 255, 255))": "on-color",
    "remove(data, putalpha=True)": "rgba",
    "remove(data, force_return_bytes=True)": "rgba",
    "new_session(sess_opts=options)": None,
    "remove(data, vitmatte=True)": "rgba",
}


@pytest.mark.parametrize("row", RESULTS)
def test_a_line_of_python_does_what_rembg_s_does(row, one_layer_dir, photo, jpeg):
    code = PYTHON[row].replace('"u2netp"', "MODEL")
    if "refine=" in code or "foreground=" in code:
        pytest.importorskip("pymatting")
    with keras_matting.open_session(one_layer_dir, "onnx-cpu") as session:
        names = {
            "matte": partial(keras_matting.matte, **({} if "MODEL" in code else {"model": one_layer_dir})),
            "open_session": partial(
                keras_matting.open_session, **({} if "MODEL" in code else {"model": one_layer_dir})
            ),
            "MODEL": one_layer_dir,
            "session": session,
            "data": photo,
            "photo": Photo(photo),
            "encoded": jpeg,
            "OutputOptions": keras_matting.OutputOptions,
            "Thresholds": Thresholds,
        }
        result = eval(code, names)
    if RESULTS[row] is None:
        assert result.engine.size == (64, 64)
        result.close()
        return
    if isinstance(result, bytes):
        photo = decode(result)
        result = np.dstack([photo.rgb, photo.alpha])
    assert result.shape == KINDS[RESULTS[row]]
    assert "harden" not in code or hard(result)


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({"U2NET_HOME": "there"}, "there/u2netp.onnx"),
        ({"U2NET_HOME": "there"}, "there/models/u2netp/u2netp.onnx"),
        ({"REMBG_HOME": "there"}, "there/models/u2netp/u2netp.onnx"),
        ({"XDG_DATA_HOME": "there"}, "there/rembg/models/u2netp/u2netp.onnx"),
        ({"XDG_DATA_HOME": "there"}, "there/.u2net/u2netp.onnx"),
        ({}, ".rembg/models/u2netp/u2netp.onnx"),
        ({}, ".u2net/u2netp.onnx"),
    ],
)
def test_what_rembg_has_downloaded_is_found(tmp_path, monkeypatch, variables, file):
    for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in {"HOME": "", **variables}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    assert pretrained._in_rembg_s_cache("u2netp.onnx") is None
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert pretrained._in_rembg_s_cache("u2netp.onnx") == tmp_path / file


def test_the_page_names_the_version_that_it_was_compared_with():
    assert re.search(r"rembg's side is that of \d+\.\d+\.\d+", PAGE)
