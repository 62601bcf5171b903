"""What is there and what is kept. Faults: two_photos_overwrite, resume_keeps_another_background."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from keras_matting.cli import main
from keras_matting.predict import plan


@pytest.fixture
def run(capfd, one_layer_dir, tmp_path, monkeypatch):
    """Run `predict` in a folder of its own; return (exit status, standard error)."""
    monkeypatch.chdir(tmp_path)
    model = ("--model", str(one_layer_dir), "--engine", "onnx-cpu", "--quiet")

    def run(*words, verb="predict"):
        try:
            status = main([verb, *map(str, words), *(model if verb == "predict" else ())])
        except SystemExit as stop:
            status = stop.code
        err = capfd.readouterr().err
        assert "Traceback" not in err
        return status, err

    return run


@pytest.fixture
def photos(tmp_path, write_photo):
    return [write_photo(tmp_path / name) for name in ("a.png", "b.png", "c.png")]


def test_a_glob_without_quotes_overwrites_no_photo(run, photos):
    before = photos[1].read_bytes()
    status, err = run("a.png", "b.png")
    assert (status, "b.png exists and was not made by keras-matting" in err, "quote the glob" in err) == (2, True, True)
    status, err = run("a.png", "b.png", "c.png")
    assert (status, "Quote a glob" in err) == (2, True)
    assert photos[1].read_bytes() == before
    assert run("a.png", "b.png", "--overwrite")[0] == 0
    assert photos[1].read_bytes() != before


def test_an_output_of_the_same_photo_is_replaced_and_one_of_another_is_not(run, photos):
    assert run("a.png", "x.png")[0] == 0
    assert run("a.png", "x.png", "--output", "mask")[0] == 0
    before = Path("x.png").read_bytes()
    status, err = run("b.png", "x.png")
    assert (status, "made of another photo than b.png" in err) == (2, True)
    assert Path("x.png").read_bytes() == before


def test_files_of_others_in_an_output_folder_fail_alone(run, photos, write_photo):
    theirs = write_photo(Path("out/b.png")).read_bytes()
    status, err = run("*.png", "out")
    assert (status, "2 done, 1 failed" in err, "out/b.png exists" in err) == (1, True, True)
    assert Path("out/b.png").read_bytes() == theirs
    assert "2 skipped" in run("*.png", "out", "--resume")[1]
    assert "3 done" in run("*.png", "out", "--overwrite")[1]
    assert "3 done" in run("*.png", "out")[1]


def test_resume_makes_anew_what_was_made_otherwise_and_says_why(run, photos, write_photo):
    resume = ("a.png", "out", "--resume", "--format", "webp", "--output")
    assert run(*resume, "on-color", "255,255,255")[0] == 0
    assert "1 skipped" in run(*resume, "on-color", "255,255,255")[1]
    assert "1 made anew: 1 other background" in run(*resume, "on-color", "0,0,0")[1]
    assert "1 other kind" in run(*resume, "on-image", "b.png")[1]
    assert "1 skipped" in run(*resume, "on-image", "b.png")[1]
    write_photo(Path("other/a.png")).write_bytes(Path("a.png").read_bytes() + b"and more")
    os.utime("other/a.png", (0, 0))
    status, err = run("other/a.png", *resume[1:], "on-image", "b.png")
    assert (status, "was made of another photo than other/a.png" in err) == (1, True)
    Path("a.png").write_bytes(Path("other/a.png").read_bytes())
    os.utime("a.png", (0, 0))
    assert "1 other photo" in run(*resume, "on-image", "b.png")[1]


def test_a_retouched_output_is_kept_by_resume_and_refused_without(run, photos):
    assert run("*.png", "out")[0] == 0
    for name, keeps_texts in (("a.png", True), ("b.png", False)):
        with Image.open(f"out/{name}") as image:
            texts = PngInfo()
            for key, text in image.text.items():
                texts.add_text(key, text)
            image.rotate(180).save(f"out/{name}", pnginfo=texts if keeps_texts else None)
    retouched = [Path(f"out/{name}").read_bytes() for name in ("a.png", "b.png")]
    status, err = run("*.png", "out", "--resume")
    assert (status, "2 kept, 1 skipped" in err) == (0, True)
    assert "kept: out/a.png exists and was changed since keras-matting made it" in err
    for name in ("a.png", "b.png"):  # also where it is the only one
        status, err = run(name, "out", "--resume")
        assert (status, "1 kept" in err) == (0, True), err
    status, err = run("*.png", "out")
    assert (status, "1 done, 2 failed" in err, "--overwrite to replace it, or --resume to keep it" in err) == (
        1,
        True,
        True,
    )
    assert [Path(f"out/{name}").read_bytes() for name in ("a.png", "b.png")] == retouched
    assert "3 done" in run("*.png", "out", "--overwrite")[1]


def test_outputs_of_earlier_runs_are_no_photos_where_there_are_others(run, photos):
    for _ in range(2):
        status, err = run(".", "cut", "--resume")
        assert status == 0
        assert run(".", "shop", "--output", "mask", "--resume")[0] == 0
    assert "3 outputs of keras-matting left out, as shop/a.png" in err
    assert len([path for path in Path().rglob("*") if path.is_file()]) == 9
    assert run("cut", "masks", "--output", "mask")[0] == 0  # nothing else is there: they are meant


def test_standard_input_replaces_no_output_of_another_photo(run, photos, monkeypatch):
    def from_stdin(data):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        return run("-", "x.png")

    data = photos[0].read_bytes()
    assert [from_stdin(data)[0] for _ in range(2)] == [0, 0]
    before = Path("x.png").read_bytes()
    status, err = from_stdin(data + b"and more")
    assert (status, "x.png exists and was made of another photo than this one" in err) == (2, True)
    assert Path("x.png").read_bytes() == before


def test_a_damaged_output_is_made_anew(run, photos):
    resume = ("a.png", "out", "--resume", "--format", "jpg", "--output", "on-color", "255,255,255")
    assert run(*resume)[0] == 0
    data = Path("out/a.jpg").read_bytes()
    middle = len(data) * 3 // 4
    Path("out/a.jpg").write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    assert "1 made anew: 1 damaged" in run(*resume)[1]


def test_one_photo_goes_to_standard_output_and_a_folder_does_not(run, photos, tmp_path):
    (tmp_path / "in").mkdir()
    for source in ("in", "*.png"):
        status, err = run(source, "-")
        assert (status, "Expected one photo for standard output" in err) == (2, True)
    assert run("a.png", "-")[0] == 0
    assert not Path("-").exists()


def test_a_pipe_as_output_is_refused_and_stays_one(run, photos):
    os.mkfifo("o.png")
    Path("link.png").symlink_to("o.png")
    for name in ("o.png", "link.png"):
        for words in ((), ("--overwrite",), ("--resume",)):
            status, err = run("a.png", name, *words)
            assert (status, f"Expected a file to write; {name} is a pipe" in err) == (2, True)
    Path("out").mkdir()
    os.mkfifo("out/a.png")
    for words in ((), ("--overwrite",), ("--resume",)):
        status, err = run("*.png", "out", *words)
        assert (status, "out/a.png is a pipe" in err) == (1, True)
    assert Path("o.png").is_fifo()
    assert Path("out/a.png").is_fifo()


def test_a_link_as_output_is_followed(run, photos):
    Path("disk").mkdir()
    Path("o.png").symlink_to("disk/of.png")
    for _ in range(2):  # to nowhere, then to an output of ours
        assert run("a.png", "o.png")[0] == 0
        assert Path("o.png").is_symlink()
        assert Path("disk/of.png").read_bytes()[:4] == b"\x89PNG"
    Path("theirs.png").symlink_to("b.png")
    before = photos[1].read_bytes()
    assert run("a.png", "theirs.png")[0] == 2
    assert photos[1].read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("out.jxl",), "Expected a file of .png, .webp, .jpg, .jpeg; received out.jxl"),
        (("out.tiff",), "received out.tiff"),
        (("x.png", "--output", "mask=5,5"), "Expected --output mask by itself; received '5,5' with it"),
        (
            ("x.png", "--output", "mask", "--foreground"),
            "Expected an output with colours for foreground; received mask",
        ),
        (("x.png", "--report", "-"), "Expected a file for the report; received -"),
    ],
)
def test_what_would_be_passed_over_is_refused(run, photos, tmp_path, words, message):
    status, err = run("a.png", *words)
    assert (status, message in err) == (2, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_an_empty_output_is_refused(run, photos):
    status, err = run("a.png", "")
    assert (status, "received an empty name" in err) == (2, True)
    assert not Path("cutouts").exists()


@pytest.mark.parametrize("words", [("--report", "c.png"), ("--report", "notes.txt")])
def test_a_report_replaces_no_file_that_is_none(run, photos, words):
    Path("notes.txt").write_text("mine")
    status, err = run("a.png", "x.png", *words)
    assert (status, "was not written by keras-matting" in err) == (2, True)
    assert run("a.png", "x.png", "--report", "r.jsonl")[0] == 0
    assert run("a.png", "x.png", "--report", "r.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("evaluate", ("m", "--data", "d", "--sheet", "a.png")),
        ("evaluate", ("m", "--data", "d", "--csv", "a.png")),
        ("evaluate", ("m", "--data", "d", "--json", "a.png")),
        ("data", ("check", "d", "--json", "a.png")),
        ("data", ("check", "d", "--sheet", "a.png")),
        ("benchmark", ("m", "--json", "a.png")),
        ("benchmark", ("m", "--markdown", "a.png")),
        ("benchmark", ("m", "--plot", "a.png")),
    ],
)
def test_tables_and_sheets_replace_no_photo(run, photos, verb, words):
    pytest.importorskip("matplotlib")
    before = photos[0].read_bytes()
    status, err = run(*words, verb=verb)
    assert (status, "a.png exists and was not written by keras-matting" in err) == (2, True)
    assert photos[0].read_bytes() == before


def test_force_replaces_no_folder_of_others(run, tmp_path, photos):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out in ("mine", "a.png"):
        status, err = run("u2netp", "--out", out, "--force", "--file", "a.png", verb="fetch")
        assert (status, "--force replaces a folder with preset.json" in err) == (2, True)
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_home_in_quotes_is_expanded(run, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "3 done" in run("~/*.png", "~/out", "--report=~/r.jsonl")[1]
    assert (tmp_path / "out" / "a.png").exists()
    assert (tmp_path / "r.jsonl").exists()


def test_names_that_differ_in_case_or_accents_have_outputs_of_their_own(tmp_path):
    names = ("a.jpg", "A.jpg", "\u00e9.jpg", "e\u0301.jpg", "x.jpg", "x.png/y.jpg")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    targets = [job.target.relative_to("out").as_posix() for job in plan(tmp_path / "in", "out", ".png")]
    assert len({name.lower() for name in targets}) == len(names)
    assert "x.jpg.png" in targets
    assert "x.png/y.png" in targets


def test_left_out_photos_are_told_and_reported(run, photos, tmp_path):
    import json

    (tmp_path / "d.dng").write_bytes(b"")
    status, err = run(".", "out", "--report", "r.jsonl")
    assert (status, "1 file left out: .dng 1" in err) == (0, True)
    last = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[-1])
    assert last == {"input": "d.dng", "status": "left out", "error": ".dng"}
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    status, err = run(".", "out")
    assert (status, "not read: broken.jpg: a link to nowhere" in err) == (1, True)


def test_outputs_of_one_stem_and_kind_are_files_of_their_own(one_layer_dir, tmp_path, write_photo):
    """Fault: api_paths_share_an_output."""
    import keras_matting

    def cut(image, **options):
        return keras_matting.matte(image, one_layer_dir, "onnx-cpu", **options)

    jpg, png = write_photo(tmp_path / "s.jpg"), write_photo(tmp_path / "s.png")
    assert cut(jpg) == tmp_path / "s.jpg.cutout.png"
    before = (tmp_path / "s.jpg.cutout.png").read_bytes()
    assert cut(str(png)) == str(tmp_path / "s.png.cutout.png")
    assert cut(jpg, output="mask") == tmp_path / "s.jpg.mask.png"
    assert (tmp_path / "s.jpg.cutout.png").read_bytes() == before

    alone = write_photo(tmp_path / "t.jpg")
    with os.scandir(tmp_path) as entries:
        entry = next(entry for entry in entries if entry.name == "t.jpg")
    assert cut(entry) == tmp_path / "t.cutout.png"
    alone.rename(tmp_path / "t.png")
    assert cut(tmp_path / "t.png") == tmp_path / "t.png.cutout.png"  # t.cutout.png is of another photo


def test_no_file_of_others_is_replaced_beside_a_photo(one_layer_dir, tmp_path, write_photo):
    import keras_matting
    from keras_matting.errors import UsageError

    photo = write_photo(tmp_path / "s.jpg")
    theirs = write_photo(tmp_path / "s.cutout.png").read_bytes()
    written = keras_matting.matte(photo, one_layer_dir, "onnx-cpu")
    assert written == tmp_path / "s.jpg.cutout.png"
    assert (tmp_path / "s.cutout.png").read_bytes() == theirs
    written.write_bytes(theirs)
    with pytest.raises(UsageError, match="was not made by keras-matting"):
        keras_matting.matte(photo, one_layer_dir, "onnx-cpu")
    assert np.array_equal(written.read_bytes(), theirs)
