import base64
import json
from pathlib import Path

import pytest

from keras_matting.cli import main
from keras_matting.json_photos import photo_id


@pytest.fixture
def folder(tmp_path, write_photo):
    write_photo(tmp_path / "photos" / "a.jpg")
    write_photo(tmp_path / "photos" / "deep" / "b.png")
    return tmp_path / "photos"


def items_of(path):
    text = path.read_text()
    return json.loads(text)["items"] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", ["x.json", "x.ndjson", "x.jsonl"])
def test_a_folder_becomes_json_and_the_same_folder_again(folder, tmp_path, name):
    assert main(["dataset", "to-json", str(folder), str(tmp_path / name)]) == 0
    items = items_of(tmp_path / name)
    assert {item["id"] for item in items} == {photo_id("a.jpg"), photo_id("deep/b.png")}
    assert main(["dataset", "from-json", str(tmp_path / name), str(tmp_path / "out"), "--photos", str(folder)]) == 0
    assert (tmp_path / "out" / "a.jpg").read_bytes() == (folder / "a.jpg").read_bytes()
    assert (tmp_path / "out" / "deep" / "b.png").read_bytes() == (folder / "deep" / "b.png").read_bytes()


def test_without_the_folder_the_ids_are_the_names(folder, tmp_path):
    main(["dataset", "to-json", str(folder), str(tmp_path / "x.json")])
    main(["dataset", "from-json", str(tmp_path / "x.json"), str(tmp_path / "out")])
    assert (tmp_path / "out" / f"{photo_id('a.jpg')}.jpg").exists()


def test_answers_to_photos_of_one_name_are_all_written(tmp_path, write_photo):
    photos, answers = tmp_path / "photos", tmp_path / "answers.json"
    data = {name: write_photo(photos / name).read_bytes() for name in ("a.jpg", "a.png", "deep/a.jpg", "b.jpg")}
    as_png = {name: data["a.png"] + name.encode() for name in data}  # told apart by what follows the image
    items = [{"id": photo_id(name), "image": base64.b64encode(png).decode()} for name, png in as_png.items()]
    answers.write_text(json.dumps({"items": items}))
    assert main(["dataset", "from-json", str(answers), str(tmp_path / "out"), "--photos", str(photos)]) == 0
    names = {"a.jpg.png": "a.jpg", "a.png.png": "a.png", "deep/a.png": "deep/a.jpg", "b.png": "b.jpg"}
    written = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in tmp_path.glob("out/**/*.png")}
    assert written == {target: as_png[name] for target, name in names.items()}


def test_items_that_failed_are_told_and_the_others_written(folder, tmp_path, capsys):
    good = {"id": "good", "image": base64.b64encode((folder / "a.jpg").read_bytes()).decode()}
    evil = {**good, "id": "../../evil"}
    items = [good, {"id": "bad", "status": 422, "problem": {"detail": "cut off"}}, {"id": "none"}, evil, 7]
    (tmp_path / "x.json").write_text(json.dumps({"items": items}))
    assert main(["dataset", "from-json", str(tmp_path / "x.json"), str(tmp_path / "a" / "b" / "out")]) == 1
    told = capsys.readouterr().err
    assert "bad: cut off" in told
    assert all(name in told for name in ("none:", "../../evil:", "item 5:"))
    assert [path.name for path in tmp_path.rglob("*.jpg") if "photos" not in path.parts] == ["good.jpg"]


@pytest.mark.parametrize("text", ["", "[]", '{"items": 1}', "{" * 100_000])
def test_a_file_of_another_kind_is_one_sentence(tmp_path, capsys, text):
    (tmp_path / "x.json").write_text(text)
    assert main(["dataset", "from-json", str(tmp_path / "x.json"), str(tmp_path / "out")]) == 2
    assert "Expected" in capsys.readouterr().err


def test_a_wrong_name_or_folder_is_one_sentence(folder, tmp_path, capsys):
    assert main(["dataset", "to-json", str(folder), str(tmp_path / "x.txt")]) == 2
    assert main(["dataset", "to-json", str(tmp_path / "none"), str(tmp_path / "x.json")]) == 2
    assert main(["dataset", "from-json", str(tmp_path / "x.json"), str(tmp_path / "out")]) == 2
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["x.json", "x.ndjson"])
def test_base64_may_be_wrapped_and_the_file_begin_with_a_mark(folder, tmp_path, capsys, name):
    """Fault: wrapped_base64_and_parts_without_filename."""
    text = base64.encodebytes((folder / "a.jpg").read_bytes()).decode()
    items = [{"id": "good", "image": text}, {"id": "bad", "image": f"{text[:9]}%{text}"}]
    content = json.dumps({"items": items}) if name == "x.json" else "\r\n".join(map(json.dumps, items))
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert main(["dataset", "from-json", str(tmp_path / name), str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "good.jpg").read_bytes() == (folder / "a.jpg").read_bytes()
    assert (
        f"bad: Expected an image in base64; received '%' as character 10 of {len(text) + 10}" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "bad",
    [
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 300,
        "..",
        ".",
        ".hidden",
        "a/../../b",
        "/a",
        "a//b",
        "a/",
        "con",
        "deep/NUL.txt",
        "FIRST",
        "first",
        7,
        "",
        None,
        ["a"],
    ],
)
def test_a_bad_id_is_told_with_its_line_and_the_others_are_written(folder, tmp_path, capsys, bad):
    """Fault: from_json_one_bad_id."""
    image = base64.b64encode((folder / "a.jpg").read_bytes()).decode()
    items = [json.dumps({"id": name, "image": image}) for name in ("first", bad, "last")]
    (tmp_path / "x.ndjson").write_text("\n".join(items))
    assert main(["dataset", "from-json", str(tmp_path / "x.ndjson"), str(tmp_path / "out")]) == 1
    assert "line 2" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["first.jpg", "last.jpg"]


@pytest.mark.parametrize("broken", [b'{"id": "a', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_json_is_told_and_the_others_are_written(folder, tmp_path, capsys, broken):
    image = base64.b64encode((folder / "a.jpg").read_bytes()).decode()
    good = json.dumps({"id": "a", "image": image}).encode()
    (tmp_path / "x.ndjson").write_bytes(b"\n".join([broken, good]))
    assert main(["dataset", "from-json", str(tmp_path / "x.ndjson"), str(tmp_path / "out")]) == 1
    assert "line 1: Expected JSON" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]
    (tmp_path / "x.ndjson").write_bytes(broken)
    assert main(["dataset", "from-json", str(tmp_path / "x.ndjson"), str(tmp_path / "out")]) == 2


def test_files_that_are_there_are_replaced_only_when_told(folder, tmp_path, capsys):
    main(["dataset", "to-json", str(folder), str(tmp_path / "x.ndjson")])
    words = ["dataset", "from-json", str(tmp_path / "x.ndjson"), str(tmp_path / "out"), "--photos", str(folder)]
    assert main(words) == 0
    (tmp_path / "out" / "a.jpg").write_text("mine")
    assert main(words) == 1
    assert "a.jpg exists" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.jpg").read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    (tmp_path / "mine.json").write_text('{"a": 1}')
    assert main(["dataset", "to-json", str(folder), str(tmp_path / "mine.json")]) == 2
    assert (tmp_path / "mine.json").read_text() == '{"a": 1}'


def test_photos_that_cannot_be_read_are_told_and_the_others_written(folder, tmp_path, capsys, monkeypatch):
    (folder / "broken.jpg").symlink_to("nowhere")
    read_bytes = Path.read_bytes

    def refusing(path):
        if path.name == "a.jpg":  # permissions say nothing to root
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    assert main(["dataset", "to-json", str(folder), str(tmp_path / "x.json")]) == 1
    told = capsys.readouterr().err
    assert "a.jpg: Permission denied" in told
    assert "broken.jpg: a link to nowhere" in told
    assert [item["id"] for item in items_of(tmp_path / "x.json")] == [photo_id("deep/b.png")]
