"""Faults: symlinked_and_unreadable_folders, heic_left_out_without_a_word, folder_readers_differ."""

import os
import socket

import pytest

from keras_matting.data.layouts import files_by_stem, read_photos
from keras_matting.errors import UsageError
from keras_matting.photos import folders, samples
from keras_matting.photos.folders import list_folder, list_glob

FOREIGN = ".foreign"


@pytest.fixture(autouse=True)
def _foreign(monkeypatch):
    """Make .foreign a picture that nobody reads: which of the real ones can be read depends on what is installed."""
    monkeypatch.setattr(folders, "PICTURES", folders.PICTURES | {FOREIGN})


@pytest.fixture
def folder(tmp_path, write_photo):
    write_photo(tmp_path / "p" / "one.jpg")
    return tmp_path / "p"


def names(listing):
    return [path.relative_to(listing.root).as_posix() for path in listing.photos]


def both(folder):
    """Return the listing of a folder; that of its globs has the same photos."""
    listing = list_folder(folder)
    for pattern in ("**/*.jpg", "**/*.JPG", "**/*", "**"):
        assert names(list_glob(f"{folder}/{pattern}")) == names(listing)
    return listing


def test_linked_folders_are_followed_and_each_real_one_is_read_once(folder, tmp_path, write_photo):
    write_photo(tmp_path / "real" / "two.jpg")
    write_photo(folder / "z" / "three.jpg")
    (folder / "linked").symlink_to("../real")
    (folder / "again").symlink_to(tmp_path / "real")
    (folder / "a").symlink_to("z")
    assert names(both(folder)) == ["again/two.jpg", "one.jpg", "z/three.jpg"]


def test_loops_of_links_end(folder, write_photo):
    (folder / "loop").symlink_to(".")
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")
    (folder / "sub" / "self").symlink_to("self")
    listing = both(folder)
    assert names(listing) == ["one.jpg"]
    assert [one.path.name for one in listing.unreadable] == ["self"]


def test_a_link_to_a_photo_that_is_listed_is_left_out_and_told(folder, tmp_path, write_photo):
    (folder / "again.jpg").symlink_to("one.jpg")
    write_photo(tmp_path / "elsewhere.jpg")
    (folder / "other.jpg").symlink_to("../elsewhere.jpg")
    listing = both(folder)
    assert names(listing) == ["one.jpg", "other.jpg"]
    assert listing.told() == [f"1 link left out: to photos that are read anyway, as {folder / 'again.jpg'}"]
    assert sorted(files_by_stem(folder)[0]) == ["again", "one", "other"]  # matched by name, so each name counts


def test_what_cannot_be_read_is_named_and_the_rest_is_read(folder, monkeypatch):
    (folder / "broken.jpg").symlink_to("nowhere")
    (folder / "unmounted").symlink_to("/nowhere/at/all")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "locked").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):  # permissions say nothing to root
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = both(folder)
    assert names(listing) == ["one.jpg"]
    assert listing.told() == [
        f"not read: {folder / 'broken.jpg'}: a link to nowhere, which is not there",
        f"not read: {folder / 'locked'}: Permission denied",
        f"not read: {folder / 'pipe.jpg'}: no file, but a FIFO, socket or device",
        f"not read: {folder / 'unmounted'}: a link to /nowhere/at/all, which is not there",
    ]


def test_sockets_are_not_opened(folder, monkeypatch):
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.jpg")
        assert names(both(folder)) == ["one.jpg"]


def test_other_formats_are_counted_and_notes_are_passed_over(folder):
    jpeg = (folder / "one.jpg").read_bytes()
    for name in (
        "a.foreign",
        "b.FOREIGN",
        "IMG_6",
        "photo.1",
        "St. Tropez 12",
        "x.txt",
        "x.json",
        "x.xmp",
        "Thumbs.db",
    ):
        (folder / name).write_bytes(jpeg)
    (folder / "Makefile").write_text("all:")
    assert both(folder).told() == ["5 files left out: no extension 3, .foreign 2"]


def test_folders_that_are_called_as_photos_are_folders_and_hidden_ones_are_passed_over(folder, write_photo):
    write_photo(folder / "x.jpg" / "b.jpg")
    for hidden in (".hidden/h.jpg", "._one.jpg", ".ipynb_checkpoints/one.jpg", ".DS_Store.jpg"):
        write_photo(folder / hidden)
    listing = both(folder)
    assert (names(listing), listing.left_out) == (["one.jpg", "x.jpg/b.jpg"], ())


def test_a_name_that_is_not_utf_8_is_kept(folder):
    name = os.fsdecode(b"caf\xe9.jpg")
    (folder / name).write_bytes((folder / "one.jpg").read_bytes())
    assert names(both(folder)) == [name, "one.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("l*/two.jpg", ["linked/two.jpg"]),
        ("*/*.jpg", ["z/two.jpg"]),
        ("linked/*", ["two.jpg"]),
        ("[z]/t?o.jpg", ["z/two.jpg"]),
        ("*/../one.jpg", ["z/../one.jpg"]),
        ("May [[]1]/*.jpg", ["May [1]/b.jpg"]),
        ("May [1]/*.jpg", ["b.jpg"]),
        ("*.png", []),
        ("none/*", []),
    ],
)
def test_globs_match_as_in_a_shell(folder, write_photo, pattern, expected):
    write_photo(folder / "z" / "two.jpg")
    (folder / "linked").symlink_to("z")
    write_photo(folder / "May [1]" / "b.jpg")
    found = names(list_glob(f"{folder}/{pattern}"))
    if pattern == "*/*.jpg":
        expected = ["May [1]/b.jpg", *expected]
    if pattern == "*/../one.jpg":
        assert len(found) == 1
    else:
        assert found == expected


def test_what_is_apart_is_not_read_also_through_links(folder, write_photo):
    write_photo(folder / "out" / "one.png")
    (folder / "linked").symlink_to("out")
    (folder / "file.png").symlink_to("out/one.png")
    assert names(list_folder(folder, apart_from=folder / "out")) == ["one.jpg"]


def test_samples_and_training_data_read_the_same_photos(folder, write_photo, caplog):
    write_photo(folder / ".hidden" / "h.jpg")
    write_photo(folder / "x.jpg" / "b.jpg")
    (folder / "broken.jpg").symlink_to("nowhere")
    (folder / "c.foreign").write_bytes(b"")
    assert len(samples.folder_photos(folder)) == 2
    assert len(caplog.messages) == 2
    found, problems = read_photos(folder)
    assert [sample.stem for sample in found] == ["one", "x.jpg/b"]
    assert [(problem.kind, problem.stem) for problem in problems] == [
        ("unreadable", "broken"),
        ("other format", "c"),
    ]


def test_a_folder_without_photos_says_what_it_has(tmp_path):
    (tmp_path / "a.foreign").write_bytes(b"")
    with pytest.raises(UsageError, match=r"found none \(1 file left out: \.foreign 1\)"):
        samples.folder_photos(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        samples.folder_photos(tmp_path / "nowhere")
