"""No more photos are begun than fit into the memory there is."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from icc_profiles import ink_profile
from PIL import Image
from server import post, script, start_server
from waiting import metric, wait_until

from keras_matting import predict
from keras_matting.errors import ImageError
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos import footprint
from keras_matting.photos.files import encode

MIB = 2**20
PLAIN = OutputOptions()


@pytest.fixture(scope="module")
def session(one_layer_dir):
    session = Session(one_layer_dir, "onnx-cpu")
    yield session
    session.close()


def refining(**options):
    pytest.importorskip("pymatting", reason="needs pip install '.[refine]'")
    return OutputOptions(**options)


def test_a_photo_s_cost_follows_its_pixels_and_what_is_made_of_it(photo):
    small, large = (footprint.of_file(encode(np.tile(photo, (n, n, 1)), ".jpg"), PLAIN) for n in (1, 3))
    assert large - small == pytest.approx(8 * photo[..., 0].size * footprint.of_photo(1_000_000, PLAIN) / 1e6, rel=0.3)
    assert footprint.of_photo(10**7, PLAIN) < footprint.of_photo(10**7, refining(foreground=True))
    assert footprint.of_photo(10**7, refining(foreground=True)) < footprint.of_photo(10**7, refining(refine=True))
    deep = np.zeros((90, 120), np.uint16)
    assert footprint.of_file(encode(deep, ".png"), PLAIN) > footprint.of_file(encode(photo, ".png"), PLAIN)
    with pytest.raises(ImageError):
        footprint.of_file(b"no photo", PLAIN)


MEASURED = """
import re, sys
import numpy as np
from keras_matting.photos import footprint, imaging
from keras_matting.photos.output import finish
from keras_matting.photos import files as photo_files
from keras_matting.model_folder import Preset
from keras_matting.matting import OutputOptions

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

if {foreground}:
    import pymatting
preset = Preset(name="p", architecture="u2netp", input_size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
options = OutputOptions({kind!r}, background=(1, 2, 3), foreground={foreground}, **{framing!r})
data = open(sys.argv[1], "rb").read()
warm = photo_files.decode(photo_files.encode(np.zeros((9, 9, 3), np.uint8), ".jpg"))
rows, columns = np.mgrid[:64, :64]
matte = np.clip(20.5 - np.hypot(rows - 32, columns - 32), 0, 1).astype(np.float32)[..., None]
before = status("VmRSS")
photo = photo_files.decode(data)
imaging.prepare(photo, preset)
photo_files.encode(finish(photo, imaging.restore(matte, photo, preset), options).image, ".png")
print(status("VmHWM") - before, footprint.of_file(data, options))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["rgba", "mask", "matte16", "on-color", "foreground", "canvas", "cropped", "inks"])
def test_a_photo_takes_no_more_than_its_cost(photo, tmp_path, kind):
    """fault: service_memory_on_color. A process of its own, whose largest size the system has kept."""
    if kind == "foreground":
        pytest.importorskip("pymatting", reason="needs pip install '.[refine]'")
    large = np.tile(photo, (24, 24, 1))
    if kind == "inks":
        Image.fromarray(large).convert("CMYK").save(tmp_path / "a.jpg", subsampling="4:2:0", icc_profile=ink_profile())
    else:
        (tmp_path / "a.jpg").write_bytes(encode(large, ".jpg"))
    foreground = kind == "foreground"
    framing = {
        "canvas": {"canvas": "2000x3000", "shadow": "soft"},
        "cropped": {"crop": True, "margin": "3%", "shadow": "soft"},
    }.get(kind, {})
    kind = {"foreground": "rgba", "canvas": "on-color", "cropped": "rgba", "inks": "rgba"}.get(kind, kind)
    code = MEASURED.format(kind=kind, foreground=foreground, framing=framing)
    command = [sys.executable, "-c", code, tmp_path / "a.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    taken, cost = map(int, done.stdout.split())
    assert taken <= cost


def test_photos_of_a_folder_are_in_memory_only_as_many_as_fit(session, tmp_path, write_photo, monkeypatch):
    tasks = []
    for index in range(8):
        photo = write_photo(tmp_path / "in" / f"{index}.jpg")
        tasks.append(predict.Task(photo, tmp_path / "out" / f"{index}.png"))
    cost = footprint.of_path(photo, PLAIN)
    room = []

    class Watched(footprint.Room):
        def __init__(self, total):
            super().__init__(2 * cost + 1)
            self.most = 0
            room.append(self)

        def take(self, key, cost):
            super().take(key, cost)
            self.most = max(self.most, sum(self._costs.values()))

    monkeypatch.setattr(footprint, "Room", Watched)
    results = list(predict.run(session, tasks))
    assert [result.status for result in results] == ["done"] * 8
    assert [result.input for result in results] == [str(task.source) for task in tasks]
    assert room[0].most == 2 * cost


def test_a_photo_that_does_not_fit_fails_alone_with_a_sentence(session, tmp_path, write_photo, photo, monkeypatch):
    small = write_photo(tmp_path / "a.png")
    large = tmp_path / "b.png"
    large.write_bytes(encode(np.tile(photo, (3, 3, 1)), ".png"))
    monkeypatch.setattr(footprint, "usable", lambda: footprint.of_path(small, PLAIN) * 0.9)
    tasks = [predict.Task(path, tmp_path / "out" / path.name) for path in (large, small)]
    failed, done = predict.run(session, tasks)
    assert (failed.status, done.status) == ("failed", "done")
    assert "fit into" in failed.error and "Scale the photo down" in failed.error


def test_what_is_known_of_no_file_is_taken_for_all_there_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert footprint.of_path(tmp_path / "pipe", PLAIN) is None
    (tmp_path / "text.jpg").write_text("no photo")
    assert footprint.of_path(tmp_path / "text.jpg", PLAIN) == 0
    room = footprint.Room(100)
    assert room.fits(None)
    room.take("pipe", None)
    assert not room.fits(1)
    room.give("pipe")
    assert room.fits(100)


NOTHING_HELD = "from keras_matting.photos import footprint\nfootprint.held = lambda: 0\n"


def settings_for(photos_mib, body_mib=4):
    """Return settings of a service, that holds nothing itself, in which photos may take about so much."""
    from keras_matting_api import memory

    fixed = 3 * (memory.STREAM_BYTES / MIB)
    return {"memory_mib": (photos_mib + fixed) / (1 - 1 / 4), "max_body_mib": body_mib}


def test_a_photo_that_can_never_fit_is_refused_before_it_is_decoded(one_layer_dir, photo, jpeg):
    """fault: service_memory_on_color"""
    large = encode(np.tile(photo, (16, 16, 1)), ".jpg")
    with start_server(one_layer_dir, script=NOTHING_HELD + script(), **settings_for(40)) as server:
        answer = httpx.post(f"{server.url}/v1/matte", content=large, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert "MiB of memory" in answer.json()["detail"]
        assert post(server, jpeg)[0] == 200


def test_large_photos_wait_as_bytes_while_small_ones_pass(one_layer_dir, photo, jpeg, tmp_path):
    """fault: service_memory_on_color. Two photos have room, five are sent."""
    large, hold = encode(np.tile(photo, (12, 12, 1)), ".jpg"), tmp_path / "hold"
    cost = footprint.of_file(large, PLAIN) / MIB
    told = tmp_path / "decoded"
    telling = f"""
from keras_matting_api import photos
decode = photos.decode

def told(data, limits):
    with open({str(told)!r}, "a") as file:
        print(len(data), file=file)
    return decode(data, limits)

photos.decode = told
"""
    code = NOTHING_HELD + telling + script(hold=hold)
    with (
        start_server(one_layer_dir, script=code, **settings_for(2.9 * cost)) as server,
        ThreadPoolExecutor(6) as pool,
    ):
        hold.touch()
        sent = [pool.submit(post, server, large) for _ in range(5)]
        wait_until(lambda: metric(server, "keras_matting_admitted") == 5)
        wait_until(lambda: told.exists() and len(told.read_text().split()) == 2)
        small = pool.submit(post, server, jpeg)
        wait_until(lambda: str(len(jpeg)) in told.read_text().split())  # it is not behind the large ones
        assert told.read_text().split().count(str(len(large))) == 2
        hold.unlink()
        assert [future.result()[0] for future in (*sent, small)] == [200] * 6


def test_bodies_share_a_bound(one_layer_dir, jpeg):
    body = jpeg + bytes(MIB - len(jpeg))
    settings = {"memory_mib": 1, "max_body_mib": 1.5}
    with start_server(one_layer_dir, script=NOTHING_HELD + script(), **settings) as server:
        head = b"POST /v1/matte HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with server.connect(head + body[:-1]):
            wait_until(lambda: metric(server, "keras_matting_admitted") == 1)
            wait_until(lambda: post(server, body)[2] == "overloaded")
        wait_until(lambda: post(server, body)[2] == "image_too_large")  # nothing fits, but the body did
