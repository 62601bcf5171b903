import json

import cv2
import numpy as np
import pytest

from keras_matting import predict
from keras_matting.errors import UsageError
from keras_matting.matting import OutputOptions, Session


@pytest.fixture(scope="module")
def session(tiny_model_dir):
    session = Session(tiny_model_dir, "onnx-cpu")
    yield session
    session.close()


def names(jobs, folder):
    return [(str(job.source.relative_to(folder)), str(job.target)) for job in jobs]


def test_a_folder_keeps_its_tree(tmp_path, write_photo):
    for name in ("b.jpg", "a/c.png", "a/d/e.webp"):
        write_photo(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    jobs = predict.plan(tmp_path / "in", "out", ".png")
    assert names(jobs, tmp_path / "in") == [
        ("a/c.png", "out/a/c.png"),
        ("a/d/e.webp", "out/a/d/e.png"),
        ("b.jpg", "out/b.png"),
    ]


def test_photos_that_would_share_an_output_keep_their_extension(tmp_path, write_photo):
    write_photo(tmp_path / "in" / "a.jpg")
    write_photo(tmp_path / "in" / "a.png")
    write_photo(tmp_path / "in" / "b.jpg")
    targets = [job.target.name for job in predict.plan(tmp_path / "in", "out", ".png")]
    assert targets == ["a.jpg.png", "a.png.png", "b.png"]


def test_names_chosen_for_a_clash_do_not_clash_again(tmp_path, write_photo):
    for name in ("a.jpg", "a.png"):
        write_photo(tmp_path / "in" / name)
    (tmp_path / "in" / "a.jpg").rename(tmp_path / "in" / "a.jpg.jpg")
    write_photo(tmp_path / "in" / "a.jpg")
    targets = [job.target.name for job in predict.plan(tmp_path / "in", "out", ".png")]
    assert sorted(targets) == ["a.jpg.jpg.png", "a.jpg.png", "a.png.png"]


def test_hidden_files_and_earlier_outputs_are_not_photos(tmp_path, write_photo):
    for name in ("a.jpg", "._a.jpg", ".trash/b.jpg", "out/a.png"):
        write_photo(tmp_path / name)
    assert [job.source.name for job in predict.plan(tmp_path, tmp_path / "out", ".png")] == ["a.jpg"]


@pytest.mark.parametrize("pattern", ["in/*.jpg", "in/**/*.jpg", "in/?.jpg", "in/x/../*.jpg"])
def test_a_glob_is_relative_to_its_fixed_part(tmp_path, write_photo, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "in" / "b.jpg")
    write_photo(tmp_path / "in" / "x" / "c.jpg")
    targets = [str(job.target) for job in predict.plan(pattern, "out", ".png")]
    assert targets == (["out/b.png", "out/x/c.png"] if "**" in pattern else ["out/b.png"])


def test_one_file_goes_to_a_file_or_into_a_folder(tmp_path, write_photo):
    photo = write_photo(tmp_path / "a.jpg")
    assert predict.plan(photo, tmp_path / "x.webp", ".png")[0].target == tmp_path / "x.webp"
    assert predict.plan(photo, tmp_path / "folder", ".png")[0].target == tmp_path / "folder" / "a.png"


def test_a_photo_is_never_overwritten(tmp_path, write_photo):
    photo = write_photo(tmp_path / "a.png")
    with pytest.raises(UsageError, match="would overwrite a photo"):
        predict.plan(photo, tmp_path, ".png")
    with pytest.raises(UsageError, match="is the folder of photos itself"):
        predict.plan(tmp_path, tmp_path, ".png")


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "does not exist"), (".", "found none"), ("*.jpg", "found none")],
)
def test_no_photos_is_explained(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        predict.plan(source, "out", ".png")


def test_many_photos_come_out_like_one_by_one(session, tmp_path, write_photo, photo):
    from keras_matting.photos.files import Photo, encode

    photos = [np.roll(photo, 9 * index, axis=1) for index in range(9)]
    (tmp_path / "in").mkdir()
    for index, rgb in enumerate(photos):
        (tmp_path / "in" / f"{index}.png").write_bytes(encode(rgb, ".png"))
    jobs = predict.plan(tmp_path / "in", tmp_path / "out", ".png")
    results = list(predict.run(session, jobs))
    assert [result.status for result in results] == ["done"] * 9
    assert [result.input for result in results] == [str(job.source) for job in jobs]
    for job, rgb in zip(jobs, photos, strict=True):
        rgba = cv2.cvtColor(cv2.imread(str(job.target), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        np.testing.assert_array_equal(rgba, session.matte(Photo(rgb)))
    assert json.loads(results[0].as_json())["width"] == 120


def test_a_broken_file_fails_alone_and_leaves_nothing(session, tmp_path, write_photo):
    for name in ("a.jpg", "c.jpg"):
        write_photo(tmp_path / "in" / name)
    (tmp_path / "in" / "b.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:300])
    results = list(predict.run(session, predict.plan(tmp_path / "in", tmp_path / "out", ".png")))
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert "truncated" in results[1].error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_a_photo_that_a_library_chokes_on_fails_alone(session, tmp_path, write_photo, monkeypatch):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_photo(tmp_path / "in" / name)
    calls = iter((None, MemoryError("out of memory"), None))

    def restore(*arguments):
        if error := next(calls):
            raise error
        return Session.restore(session, *arguments)

    monkeypatch.setattr(session, "restore", restore)
    results = list(predict.run(session, predict.plan(tmp_path / "in", tmp_path / "out", ".png")))
    assert sorted(result.status for result in results) == ["done", "done", "failed"]


class RuntimesOwnError(Exception):
    """What an engine's runtime raises, of a class that nobody else knows."""


def test_a_photo_that_the_engine_s_runtime_fails_on_fails_alone(session, tmp_path, write_photo, monkeypatch):
    predict_one, calls = session.engine.predict, iter([False, True, False])

    def fail_once(batch):
        if next(calls):
            raise RuntimesOwnError("out of workspace\nat line 1")
        return predict_one(batch)

    monkeypatch.setattr(session.engine, "predict", fail_once)
    for name in ("a.png", "b.png", "c.png"):
        write_photo(tmp_path / "in" / name)
    results = list(predict.run(session, predict.plan(tmp_path / "in", tmp_path / "out", ".png")))
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert results[1].error == "Engine onnx-cpu failed: RuntimesOwnError: out of workspace. Try another engine."


def test_an_output_that_cannot_be_written_fails_alone(session, tmp_path, write_photo):
    for name in ("a.jpg", "b/c.jpg"):
        write_photo(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("a file where a folder must be")
    results = list(predict.run(session, predict.plan(tmp_path / "in", tmp_path / "out", ".png")))
    assert [result.status for result in results] == ["done", "failed"]
    assert "Expected to write" in results[1].error


def test_resume_skips_what_is_whole_and_redoes_what_is_not(session, tmp_path, write_photo):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_photo(tmp_path / "in" / name)
    jobs = predict.plan(tmp_path / "in", tmp_path / "out", ".png")
    list(predict.run(session, jobs))
    whole = jobs[1].target.read_bytes()
    jobs[1].target.write_bytes(whole[: len(whole) // 2])
    jobs[2].target.unlink()
    results = list(predict.run(session, jobs, resume=True))
    assert [result.status for result in results] == ["skipped", "done", "done"]
    assert jobs[1].target.read_bytes() == whole


def test_stopping_early_leaves_only_whole_files(session, tmp_path, write_photo):
    for index in range(12):
        write_photo(tmp_path / "in" / f"{index}.jpg")
    results = predict.run(session, predict.plan(tmp_path / "in", tmp_path / "out", ".png"))
    next(results)
    results.close()
    written = list((tmp_path / "out").iterdir())
    assert 1 <= len(written) < 12
    assert all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (90, 120, 4) for path in written)


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        (OutputOptions("mask"), (90, 120), np.uint8),
        (OutputOptions("matte16"), (90, 120), np.uint16),
        (OutputOptions("rgba"), (90, 120, 4), np.uint8),
        (OutputOptions("on-color", (255, 0, 0)), (90, 120, 3), np.uint8),
        (OutputOptions("on-image", np.zeros((5, 5, 3), np.uint8)), (90, 120, 3), np.uint8),
    ],
)
def test_each_kind_of_output_has_its_shape(session, photo, options, shape, dtype):
    from keras_matting.photos.files import Photo

    result = session.matte(Photo(photo), options)
    assert (result.shape, result.dtype) == (shape, dtype)
