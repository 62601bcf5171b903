"""What a mask file says, kind by kind, and what training and evaluation make of files that are no mattes."""

import io

import numpy as np
import pytest
import tiny
from data_files import HEIGHT, WIDTH, blurred_by_jpeg, grey, half_mask, kinds, picture, save, soft
from PIL import Image

from keras_matting.cli import main
from keras_matting.data import masks
from keras_matting.data.base import Sample, read_sample
from keras_matting.data.check import check
from keras_matting.data.sources import read_source
from keras_matting.errors import ImageError, UsageError
from keras_matting.training.selection import select

SUBJECT = np.asarray(half_mask()) > 0
FULL = Image.new("L", (WIDTH, HEIGHT), 255)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0, 0, 0] * 251 + [224, 224, 192]


def in_colour(colour, mode="RGB"):
    return Image.fromarray((SUBJECT[..., None] * np.array(colour, np.uint8)).astype(np.uint8), mode)


def one_pixel(value):
    """An alpha channel that is opaque but for one pixel, large enough for it to be one of many."""
    alpha = FULL.copy()
    alpha.putpixel((0, 0), value)
    return alpha


def palette(colours, *ids):
    image = grey(*ids)
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colours)
    return image


def as_file(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


@pytest.fixture
def read(tmp_path):
    return lambda spec: read_source(str(spec), tmp_path / "cache", allow_empty=True)


@pytest.fixture
def data(tmp_path):
    """A folder with a whole pair."""
    write(tmp_path / "data", "good.png", half_mask())
    return tmp_path / "data"


def write(folder, name, mask, **options):
    stem = name.rpartition(".")[0]
    save(picture(len(stem)), folder / "image" / f"{stem}.png")
    return save(mask, folder / "mask" / name, **options)


COLOURED = {
    "green": ("a.png", in_colour((0, 255, 0))),  # fault: coloured_masks_pass_check
    "red": ("a.png", in_colour((255, 0, 0))),
    "pale": ("a.png", in_colour((224, 224, 192))),
    "classes by palette": ("a.png", palette(VOC, 0, 2, 0, 1)),
    "void by palette": ("a.png", palette(VOC, 0, 255)),
    "one pixel": ("a.png", Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)[..., None] * np.uint8([9, 0, 90]))),
    "jpeg": ("a.jpg", in_colour((200, 30, 30))),
    "tiff": ("a.tif", in_colour((0, 128, 0))),
    "rgba, opaque": ("a.png", in_colour((0, 255, 0)).convert("RGBA")),
    "rgba, all transparent": ("a.png", Image.merge("RGBA", (*in_colour((0, 255, 0)).split(), FULL.point(lambda _: 0)))),
    "rgba, half transparent": (
        "a.png",
        Image.merge("RGBA", (*in_colour((0, 9, 99)).split(), FULL.point(lambda _: 99))),
    ),
    "a photo": ("a.png", picture(3)),
}


@pytest.mark.parametrize(("name", "mask"), COLOURED.values(), ids=COLOURED)
def test_coloured_masks_are_left_out_and_told(read, data, name, mask):
    write(data, name, mask)
    source = read(data)
    assert kinds(source) == [("coloured mask", "a")]
    assert [sample.stem for sample in source.samples] == ["good"]
    assert str(data / "mask" / name) in source.problems[0].detail
    with pytest.raises(ImageError, match="Write 255 where the subject is"):
        read_sample(Sample("a", data / "image" / "a.png", data / "mask" / name))


MATTES = {
    "rgb": ("a.png", half_mask().convert("RGB")),
    "grey palette": ("a.png", half_mask().quantize(2)),
    "rgba, opaque": ("a.png", half_mask().convert("RGBA")),
    "rgba, all transparent": ("a.png", Image.merge("RGBA", (*[half_mask()] * 3, FULL.point(lambda _: 0)))),
    "rgba, half transparent": ("a.png", Image.merge("RGBA", (*[half_mask()] * 3, FULL.point(lambda _: 128)))),
    "rgba, a cut-out": ("a.png", Image.merge("RGBA", (*picture(4).split(), half_mask()))),
    "grey and opaque alpha": ("a.png", Image.merge("LA", (half_mask(), FULL))),
    "grey and an alpha that varies in one pixel": ("a.png", Image.merge("LA", (half_mask(), one_pixel(254)))),
    "rgb and an alpha that varies in one pixel": ("a.png", Image.merge("RGBA", (*[half_mask()] * 3, one_pixel(0)))),
    "grey and varying alpha": ("a.png", Image.merge("LA", (FULL, half_mask()))),
    "16 bits": ("a.png", Image.fromarray(np.asarray(half_mask()).astype(np.uint16) * 257)),
    "1 bit": ("a.png", half_mask().convert("1")),
}


@pytest.mark.parametrize(("name", "mask"), MATTES.values(), ids=MATTES)
def test_a_grey_mask_is_itself_however_it_is_stored_and_read(read, data, name, mask):
    path = write(data, name, mask)
    (sample,) = [sample for sample in read(data).samples if sample.stem == "a"]
    np.testing.assert_array_equal(read_sample(sample)[1], np.asarray(half_mask()))
    direct = read_sample(Sample("a", data / "image" / "a.png", path))[1]
    np.testing.assert_array_equal(direct, np.asarray(half_mask()))


def test_an_alpha_of_0_and_1_over_a_photo_is_told_as_such(read, data):
    path = write(data, "a.png", Image.merge("RGBA", (*picture(4).split(), Image.fromarray(SUBJECT.astype(np.uint8)))))
    alpha = read_sample(Sample("a", data / "image" / "a.png", path))[1]
    assert masks.fault(alpha)[0] == "0/1 mask"


@pytest.mark.parametrize("quality", [15, 50, 90])
def test_jpeg_s_noise_is_no_colour_and_no_class(read, data, quality):
    mask = Image.new("RGB", (WIDTH, HEIGHT))
    mask.paste((255, 255, 255), (5, 3, 17, 13))
    write(data, "a.jpg", mask, quality=quality)
    source = read(data)
    assert source.problems == ()
    alpha = read_sample(source.samples[0])[1]
    assert alpha[4:12, 6:16].min() > 200 > 60 > alpha[:, 20:].max()
    assert masks.fault(alpha) is None


CLASS_MAPS = {
    "ids": [0, 1, 2, 15],
    "ids and void": [0, 15, 255],
    "aeroplane and void": [0, 1, 1, 1, 255],
    "ids up to 150": [3, 12, 137],
    "greys of class colours": [0, 38, 75],
    "grey of one class colour": [0, 150],
    "grey of a person and the border": [0, 147, 147, 147, 220],
    "trimap": [0, 0, 128, 255, 255, 255],
}


@pytest.mark.parametrize("levels", CLASS_MAPS.values(), ids=CLASS_MAPS)
def test_flat_levels_are_a_class_map(levels):
    alpha = np.asarray(grey(*levels).resize((240, 160), Image.Resampling.NEAREST))
    assert masks.fault(alpha)[0] == masks.misleading(alpha)[0] == "class map"


@pytest.mark.parametrize(
    "alpha",
    [
        np.asarray(half_mask()),
        soft(),
        soft() // 5 * 5,
        np.asarray(Image.fromarray(soft()).resize((50, 50))) // 16 * 17,
        (soft() * 0.8).astype(np.uint8),
        np.asarray(half_mask().resize((97, 61), Image.Resampling.BILINEAR)),
        np.where(SUBJECT, 200, 0).astype(np.uint8),
        np.asarray(as_file(Image.fromarray(np.where(soft() > 90, 255, 0).astype(np.uint8)), "JPEG", quality=20)),
        np.where(np.mgrid[:8, :8][0] < 4, 254, 1).astype(np.uint8),  # blocks of a JPEG
    ],
    ids=["hard", "soft", "few levels", "16 levels", "veil", "rescaled", "flat veil", "jpeg", "jpeg of two blocks"],
)
def test_mattes_have_no_fault(alpha):
    assert masks.fault(alpha) is None


@pytest.mark.parametrize(
    ("alpha", "kind", "misleads"),
    [
        (soft() // 3, "faint mask", False),
        (np.where(SUBJECT, 58, 0).astype(np.uint8), "faint mask", True),
        (SUBJECT.astype(np.uint8), "0/1 mask", True),
        (np.zeros((9, 9), np.uint8), "empty mask", False),
        (blurred_by_jpeg(0), "empty mask", False),
        (np.full((9, 9), 255, np.uint8), "all-white mask", False),
        (blurred_by_jpeg(253), "all-white mask", False),
        (255 - np.where(soft() > 90, 255, 0).astype(np.uint8), "inverted mask", False),
    ],
)
def test_other_faults_have_their_kinds(alpha, kind, misleads):
    assert masks.fault(alpha)[0] == kind
    assert bool(masks.misleading(alpha)) == misleads


@pytest.mark.parametrize("values", [SUBJECT * 255, SUBJECT * 15], ids=["8 bits in 16", "class ids"])
def test_16_bit_masks_of_small_numbers_are_told(read, data, values):
    write(data, "a.png", Image.fromarray(values.astype(np.uint16)))
    source = read(data)
    assert kinds(source) == [("faint mask", "a")]
    assert f"{values.max()} of 65535" in source.problems[0].detail


def test_black_16_bit_masks_are_black(read, data):
    write(data, "a.png", Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)))
    assert read(data).problems == ()


# Who uses them


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MATTING_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("home")
def test_data_check_tells_of_coloured_masks_with_the_remedy(data, capsys):
    write(data, "a.png", in_colour((0, 255, 0)))
    write(data, "bb.png", grey(0, 38, 75))
    assert main(["data", "check", str(data)]) == 1
    told = capsys.readouterr()
    rows = [line.split() for line in told.out.splitlines()[-2:]]
    assert [row[:3] for row in rows] == [["coloured", "mask", "1"], ["class", "map", "1"]]
    assert "received colours, as (0,255,0). Write 255 where the subject is" in told.err


@pytest.mark.usefixtures("tiny_model", "home")
@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (in_colour((0, 255, 0)), "coloured mask: wrong0; .*wrong0.png: Expected a grey mask"),
        (grey(0, 150), r"class map \(1\): wrong0; .*wrong0.png: flat levels \(150\)"),
        (Image.fromarray(SUBJECT.astype(np.uint8)), r"0/1 mask \(1\): wrong0; .*multiply by 255"),
    ],
    ids=["coloured", "class map", "0/1"],
)
def test_runs_leave_out_what_is_no_matte_and_are_refused_where_nothing_else_is_there(tmp_path, mask, told, caplog):
    mixed, wrong = tmp_path / "mixed", tmp_path / "wrong"
    for number in range(4):
        write(mixed, f"{'x' * number}.png" if number else "wrong0.png", half_mask() if number else mask)
        write(wrong, f"wrong{number}.png", mask)
    training, _ = select(tiny.settings(mixed, val_fraction=0.0))
    assert sorted(sample.stem for sample in training[0].samples) == ["x", "xx", "xxx"]
    assert any(pytest.RaisesExc(UsageError, match=told).matches(UsageError(line)) for line in caplog.messages), (
        caplog.text
    )
    with pytest.raises(UsageError, match=r"wrong0"):
        select(tiny.settings(wrong, val_fraction=0.0))
    with pytest.raises(UsageError, match=r"wrong0"):
        select(tiny.settings(mixed, val=str(wrong), val_fraction=0.0))


@pytest.mark.usefixtures("tiny_model", "home")
@pytest.mark.parametrize(("alpha", "kind"), [(FULL, "no transparency"), (grey(0, 1), "0/1 mask")])
def test_cut_outs_without_a_matte_are_left_out(tmp_path, alpha, kind, caplog):
    for name, truth in (("a", half_mask()), ("b", alpha)):
        save(Image.merge("RGBA", (*picture(1).split(), truth)), tmp_path / "cut" / f"{name}.png")
        save(picture(2), tmp_path / "bg" / f"{name}.png")
    spec = f"composite:{tmp_path}/cut,{tmp_path}/bg"
    training, _ = select(tiny.settings(spec, val_fraction=0.0))
    assert [sample.stem for sample in training[0].samples] == ["a"]
    assert f"{kind} (1): b" in caplog.messages[0]


def test_what_an_earlier_version_converted_is_made_anew(read, data, monkeypatch):
    write(data, "a.png", half_mask().convert("RGB"))
    monkeypatch.setattr("keras_matting.data.prepare._RENDERING", 1)
    (old,) = [sample.alpha for sample in read(data).samples if sample.stem == "a"]
    old.write_bytes(old.read_bytes()[:9])
    monkeypatch.undo()
    assert check([read(data)])["problems"] == []
