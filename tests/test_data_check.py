import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from keras_matting.cli import main
from keras_matting.data.check import check, sheet_groups
from keras_matting.data.sheet import Group, contact_sheet, on_checkerboard
from keras_matting.data.sources import read_sources

WIDTH, HEIGHT = 60, 80


def photo(seed=0, size=(WIDTH, HEIGHT)):
    """A smooth picture, different for each seed and the same at any size, as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))


def mask(value=255):
    image = Image.new("L", (WIDTH, HEIGHT))
    image.paste(value, (10, 10, 50, 70))
    return image


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A clean set of three pairs: a, b, c."""
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    folder = tmp_path / "data"
    for seed, stem in enumerate("abc"):
        save(photo(seed), folder / "image" / f"{stem}.png")
        save(mask(), folder / "mask" / f"{stem}.png")
    return folder


@pytest.fixture
def run(capfd):
    """Run `keras-matting data`; return (exit status, standard output, standard error)."""

    def run(*words):
        try:
            status = main(["data", *map(str, words)])
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


def problems(*specs):
    report = check(read_sources(specs, allow_empty=True))
    return [(problem["kind"], problem["stem"], problem["detail"]) for problem in report["problems"]]


def kinds(*specs):
    return [problem[:2] for problem in problems(*specs)]


def test_clean_data_has_no_problem(data):
    report = check(read_sources([data]))
    assert report["problems"] == []
    (counts,) = report["sources"]
    assert (counts["samples"], counts["median_size"], counts["soft_masks"]) == (3, [WIDTH, HEIGHT], 0)
    assert counts["mean_foreground"] == 0.5


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        (Image.new("L", (WIDTH, HEIGHT), 0), "empty mask"),
        (Image.new("L", (WIDTH, HEIGHT), 255), "all-white mask"),
        (mask(1), "0/1 mask"),
        (mask(58), "faint mask"),
    ],
)
def test_masks_that_teach_nothing_are_found(data, truth, kind):
    save(truth, data / "mask" / "b.png")
    assert kinds(data) == [(kind, "b")]


def test_soft_masks_are_counted(data):
    save(mask(200), data / "mask" / "b.png")
    report = check(read_sources([data]))
    assert report["problems"] == []
    assert report["sources"][0]["soft_masks"] == 1


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_file_whose_header_alone_is_whole_is_unreadable(data, part):
    path = data / part / "b.png"
    path.write_bytes(path.read_bytes()[:-40])
    ((kind, stem, detail),) = problems(data)
    assert (kind, stem) == ("unreadable", "b")
    assert "truncated" in detail


def test_what_reading_left_out_is_told_too(data):
    save(mask().resize((5, 5)), data / "mask" / "a.png")
    (data / "mask" / "b.png").unlink()
    save(mask(), data / "mask" / "d.png")
    assert sorted(kinds(data)) == [("image without mask", "b"), ("mask without image", "d"), ("size mismatch", "a")]


def test_data_of_problems_only_is_told_and_no_error(data):
    for stem in "abc":
        (data / "image" / f"{stem}.png").write_bytes(b"")
    assert kinds(data) == [("unreadable", stem) for stem in "abc"]


def test_the_same_pixels_are_a_duplicate_whatever_the_file_says(data):
    save(photo(0), data / "image" / "d.bmp")
    save(mask(), data / "mask" / "d.png")
    assert problems(data) == [("duplicate", "d", "a")]


def test_a_rescaled_and_recompressed_copy_is_a_near_duplicate(data):
    save(photo(1, (2 * WIDTH, 2 * HEIGHT)), data / "image" / "d.jpg", quality=60)
    save(mask().resize((2 * WIDTH, 2 * HEIGHT)), data / "mask" / "d.png")
    assert problems(data) == [("near duplicate", "d", "b")]


def test_different_photos_are_no_duplicates(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    for seed in range(200):
        save(photo(seed), tmp_path / "photos" / f"{seed}.png")
    save(Image.new("RGB", (WIDTH, HEIGHT), (250, 250, 250)), tmp_path / "photos" / "white.png")
    save(Image.new("RGB", (WIDTH, HEIGHT), (5, 5, 5)), tmp_path / "photos" / "black.png")
    assert kinds(f"unlabelled:{tmp_path / 'photos'}") == []


def test_faint_textures_of_one_grey_are_no_duplicates(tmp_path):
    def texture(seed):
        cells = np.full((8, 9), 128, np.uint8)
        cells[2:] += np.random.default_rng(seed).integers(0, 3, (6, 9), dtype=np.uint8)  # the rest of the rows is one
        return Image.fromarray(cells.repeat(10, axis=0).repeat(10, axis=1)).convert("RGB")

    for seed in range(20):
        save(texture(seed), tmp_path / "photos" / f"{seed}.png")
    assert kinds(f"unlabelled:{tmp_path / 'photos'}") == []


def test_a_photo_in_two_sources_is_told_with_the_other(data, tmp_path):
    save(photo(2), tmp_path / "val" / "x.png")
    assert problems(data, f"unlabelled:{tmp_path / 'val'}") == [("duplicate", "x", f"c of {data}")]


def write_composite(data):
    for number, stem in enumerate("pq"):
        cutout = photo(10 + number)
        cutout.putalpha(mask())
        save(cutout, data / "cut" / f"{stem}.png")
        save(photo(20 + number), data / "bg" / f"{stem}.jpg")
    return f"composite:{data / 'cut'},{data / 'bg'}"


def test_cutouts_are_judged_by_their_alpha_and_what_is_seen_of_them(data):
    spec = write_composite(data)
    assert kinds(spec) == []
    hidden = np.array(Image.open(data / "cut" / "p.png"))
    hidden[..., :3][hidden[..., 3] == 0] = 7
    save(Image.fromarray(hidden), data / "cut" / "same.png")
    opaque = photo(30)
    opaque.putalpha(255)
    save(opaque, data / "cut" / "opaque.png")
    assert kinds(spec) == [("all-white mask", "opaque"), ("duplicate", "same")]


def test_backgrounds_are_checked_and_may_serve_two_sources(data):
    spec = write_composite(data)
    assert kinds(spec, f"composite:{data / 'cut'}/,{data / 'bg'}") == [("duplicate", "p"), ("duplicate", "q")]
    path = data / "bg" / "p.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    assert kinds(spec) == [("unreadable", "p")]


def test_groups_hold_photo_alpha_and_cutout(data):
    photos = f"unlabelled:{data / 'image'}"
    groups = sheet_groups(read_sources([data, write_composite(data), photos]), 5)
    assert [len(group.pictures) for group in groups] == [3, 3, 3, 3, 1]
    rgb, alpha, shown = groups[0].pictures
    np.testing.assert_array_equal(alpha, np.asarray(mask()))
    np.testing.assert_array_equal(shown[20, 20], rgb[20, 20])
    assert (shown[0, 0] != rgb[0, 0]).any()
    _, alpha, composited = groups[2].pictures
    assert len(np.unique(composited[alpha == 0])) > 20  # a background, not the checkerboard


def test_large_photos_are_scaled_where_they_are_picked(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))
    save(photo(0, (900, 1200)), tmp_path / "image" / "a.png")
    save(mask().resize((900, 1200)), tmp_path / "mask" / "a.png")
    cutout = photo(1, (900, 1200))
    cutout.putalpha(mask().resize((900, 1200)))
    save(cutout, tmp_path / "cut" / "b.png")
    specs = [tmp_path, f"composite:{tmp_path / 'cut'},{tmp_path / 'image'}", f"unlabelled:{tmp_path / 'image'}"]
    groups = sheet_groups(read_sources(specs), 3)
    assert {picture.shape[:2] for group in groups for picture in group.pictures} == {(440, 330)}
    expected = cv2.resize(np.asarray(photo(0, (900, 1200))), (330, 440), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(groups[0].pictures[0], expected)


def test_the_same_samples_are_drawn_again(data):
    sources = read_sources([data])
    assert [group.caption for group in sheet_groups(sources, 2)] == [
        group.caption for group in sheet_groups(sources, 2)
    ]


def test_a_sheet_shows_every_picture_within_its_width():
    red, blue = np.zeros((40, 30, 3), np.uint8), np.zeros((20, 300, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    grey = np.full((40, 30), 77, np.uint8)
    page = contact_sheet([Group("a", (red, grey)), Group("b", (blue, blue, blue))] * 3, height_px=50, width_px=400)
    assert page.shape[1] <= 400
    for colour, least in (((255, 0, 0), 3 * 50 * 30), ((77, 77, 77), 3 * 50 * 30), ((0, 0, 255), 3 * 3 * 100)):
        assert (page == colour).all(axis=2).sum() > least


def test_captions_are_drawn_in_any_script_and_cut_to_their_pictures():
    picture = np.zeros((50, 60, 3), np.uint8)
    plain = contact_sheet([Group("", (picture,))])
    for caption in ("衬衫", "blåbær", "x" * 300):
        page = contact_sheet([Group(caption, (picture,))])
        assert page.shape == plain.shape
        assert (page != plain).any()


def test_a_checkerboard_shows_through_where_alpha_is_zero():
    red = np.full((80, 80, 3), (255, 0, 0), np.uint8)
    shown = on_checkerboard(red, np.zeros((80, 80), np.uint8))
    assert {tuple(colour) for colour in shown.reshape(-1, 3)} == {(255, 255, 255), (205, 205, 205)}
    np.testing.assert_array_equal(on_checkerboard(red, np.full((80, 80), 255, np.uint8)), red)


# Command line


def test_clean_data_exits_with_0_and_problems_with_1(run, data, tmp_path):
    status, out, _ = run("check", data)
    assert status == 0
    assert "no problems" in out
    save(Image.new("L", (WIDTH, HEIGHT)), data / "mask" / "b.png")
    report = tmp_path / "report.json"
    status, out, _ = run("check", data, "--json", report)
    assert status == 1
    assert out.splitlines()[-1].split() == ["empty", "mask", "1", str(data), "b"]
    content = json.loads(report.read_text())
    assert content["problems"] == [{"kind": "empty mask", "source": str(data), "stem": "b", "detail": "no foreground"}]


def test_of_many_problems_the_table_names_the_first_and_json_all(run, data, tmp_path):
    for number in range(9):
        save(photo(100 + number), data / "image" / f"lone{number}.png")
    report = tmp_path / "report.json"
    _, out, _ = run("check", data, "--json", report)
    assert "lone4, and 4 more" in out
    assert "lone5" not in out
    assert len(json.loads(report.read_text())["problems"]) == 9


def test_a_contact_sheet_is_written(run, data, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    status, _, err = run("check", data, "--sheet", sheet, "--count", 2)
    assert status == 0
    assert "2 random samples" in err
    assert Image.open(io.BytesIO(sheet.read_bytes())).size[1] > 220


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "none"], "does not exist"),
        (["check"], "SPEC"),
        (["mend", "{data}"], "invalid choice"),
        (["check", "{data}", "--sheet", "sheet.jpg"], "contact sheet as .png"),
        (["check", "{data}", "--count", "0"], "a whole number above 0; received '0'"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exits_with_2(run, data, words, message):
    status, _, err = run(*(word.format(data=data) for word in words))
    assert status == 2
    assert message in err
    assert "Traceback" not in err
