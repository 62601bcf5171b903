"""Where subjects are, and where they go: exact numbers on made mattes."""

import numpy as np
import pytest

from keras_matting.errors import ImageError, UsageError
from keras_matting.photos.framing import Box, Framing
from keras_matting.photos.subject import isolate


def matte_of(*boxes, size=(90, 120), value=1.0):
    matte = np.zeros(size, np.float32)
    for box in boxes:
        matte[box.slices] = value
    return matte


def subject_box(matte):
    return isolate(matte)[1]


SUBJECT = Box(left=30, top=20, width=40, height=50)


def test_the_box_is_the_subject_s_without_specks():
    speck, second_shoe = Box(100, 5, 5, 5), Box(80, 60, 20, 25)
    assert subject_box(matte_of(SUBJECT)) == SUBJECT
    assert subject_box(matte_of(SUBJECT, speck)) == SUBJECT
    assert subject_box(matte_of(SUBJECT, second_shoe)) == Box(30, 20, 70, 65)


def test_haze_is_no_subject_but_a_soft_edge_is():
    hazy = matte_of(Box(0, 0, 120, 90), value=0.3)
    hazy[SUBJECT.slices] = 1
    isolated, box = isolate(hazy)
    assert box == Box(28, 18, 44, 54)  # what of it is as near as an edge
    assert isolated[40, :28].max() == isolated[40, 73:].max() == 0
    np.testing.assert_array_equal(isolated[SUBJECT.slices], 1)
    soft = matte_of(SUBJECT)
    soft[19, 30:70], soft[70, 30:70] = 0.2, 0.05
    isolated, box = isolate(soft)
    assert box == Box(30, 19, 40, 51)
    np.testing.assert_array_equal(isolated, soft)


def test_a_speck_within_the_subject_s_box_is_left_out_too():
    frame = matte_of(Box(0, 0, 60, 60), size=(60, 60))
    frame[5:, 5:] = 0
    frame[30:32, 30:32] = 0.9
    isolated, box = isolate(frame)
    assert box == Box(0, 0, 60, 60)
    assert isolated[30, 30] == 0
    assert isolated[2, 2] == 1


def test_a_large_part_of_which_nothing_is_sure_is_haze():
    unsure = Box(80, 60, 30, 28)
    matte = matte_of(SUBJECT)
    matte[unsure.slices] = 0.7
    assert subject_box(matte) == SUBJECT
    np.testing.assert_array_equal(isolate(matte)[0], matte_of(SUBJECT))
    assert subject_box(matte_of(SUBJECT, unsure, value=0.7)) == Box(30, 20, 80, 68)  # nothing else is surer


def test_edges_are_as_soft_in_a_large_photo():
    large = np.repeat(np.repeat(matte_of(SUBJECT), 20, axis=0), 20, axis=1)
    large[380:400, 600:1400] = np.linspace(0, 1, 20)[:, None]  # a ramp of a 50th of its height
    isolated, _ = isolate(large)
    np.testing.assert_allclose(isolated[391:400, 1000], large[391:400, 1000], atol=1e-6)


def test_a_subject_may_touch_every_side_or_be_one_pixel():
    assert subject_box(matte_of(Box(0, 0, 120, 90))) == Box(0, 0, 120, 90)
    assert subject_box(matte_of(Box(119, 89, 1, 1))) == Box(119, 89, 1, 1)


@pytest.mark.parametrize("value", [0, 0.5])
def test_an_empty_matte_is_told(value):
    with pytest.raises(ImageError, match="an empty matte"):
        subject_box(matte_of(SUBJECT, value=value))


def placed(box=SUBJECT, height=90, width=120, **options):
    return Framing.of(**options).place(box, height, width)


@pytest.mark.parametrize(
    ("margin", "target", "size"),
    [
        (None, (0, 0), (50, 40)),
        ("0", (0, 0), (50, 40)),
        ("10px", (10, 10), (70, 60)),
        ("10%", (4, 5), (60, 48)),  # of the box: 40 across, 50 down
        ("10px 20%", (8, 10), (70, 56)),
        ("1px 2px 3px 4px", (4, 1), (54, 46)),
        ("1px,2px,3px,4px", (4, 1), (54, 46)),
        ("100px", (100, 100), (250, 240)),  # over the photo's edge
    ],
)
def test_a_crop_is_the_box_and_its_margins(margin, target, size):
    placement = placed(crop=True, margin=margin)
    assert placement.box == SUBJECT
    assert placement.target == (*target, 40, 50)
    assert placement.size == size


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, (10, 0, 80, 100)),
        ({"scale": "80%"}, (18, 10, 64, 80)),
        ({"scale": "original"}, (30, 25, 40, 50)),
        ({"scale": "original", "position": "top"}, (30, 0, 40, 50)),
        ({"scale": "original", "position": "bottom-right"}, (60, 50, 40, 50)),
        ({"scale": "original", "position": "left bottom"}, (0, 50, 40, 50)),
        ({"scale": "original", "position": "center"}, (30, 25, 40, 50)),
        ({"scale": "original", "position": "25% 80%"}, (15, 40, 40, 50)),
        ({"scale": "original", "position": "100%"}, (60, 50, 40, 50)),
        ({"margin": "10px"}, (18, 10, 64, 80)),
        ({"margin": "10px 0 0 0"}, (14, 10, 72, 90)),
        ({"margin": "0 50px 0 0"}, (0, 19, 50, 62)),
        ({"margin": "25%"}, (24, 16, 53, 67)),
        ({"margin": "5px", "scale": "original", "position": "bottom"}, (30, 45, 40, 50)),
        ({"crop": True}, (10, 0, 80, 100)),
    ],
)
def test_a_canvas_has_the_subject_at_its_place(options, target):
    placement = placed(canvas="100x100", **options)
    assert placement.target == target
    assert placement.size == (100, 100)


def test_without_a_canvas_the_photo_s_size_is_one():
    assert placed(scale="50%").size == (90, 120)
    assert placed(scale="50%").target == (42, 22, 36, 45)
    assert placed(position="top").target == (40, 0, 40, 50)
    assert placed(position="0% 100%").target == (0, 40, 40, 50)
    assert placed(canvas=(200, 100)) == placed(canvas="200x100")


def test_a_shadow_grows_the_box_so_that_it_is_not_cut():
    assert placed(crop=True, shadow="soft").size == (50 + 2 + 4, 40 + 3 + 3)
    assert placed(crop=True, shadow="soft", margin="30px").size == (110, 100)  # where it has room already
    placement = placed(canvas="100x100", shadow="soft")
    assert placement.target == (14, 2, 73, 91)
    assert placed(shadow="soft").target == (0, 0, 120, 90)
    assert placed(shadow="soft").subject == SUBJECT


def test_a_shadow_has_what_room_there_is_at_the_original_size():
    assert placed(canvas="40x50", scale="original", shadow="soft").target == (0, 0, 40, 50)


@pytest.mark.parametrize("options", [{}, {"scale": "original"}, {"position": "original"}, {"shadow": "off"}])
def test_nothing_asked_is_no_framing(options):
    assert Framing.of(**options) is None


def test_the_same_said_otherwise_is_the_same():
    assert Framing.of(crop=True, margin="0") == Framing.of(crop=True, margin="0px 0%")
    assert repr(Framing.of(canvas="9x8")) == repr(Framing.of(crop=False, canvas=(9, 8), scale="100%", position="50%"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": True, "margin": "3"}, "a margin of one, two or four"),
        ({"crop": True, "margin": "-3px"}, "a margin of one, two or four"),
        ({"crop": True, "margin": "1px 2px 3px"}, "a margin of one, two or four"),
        ({"crop": True, "margin": "nan%"}, "a margin of one, two or four"),
        ({"crop": True, "margin": ""}, "a margin of one, two or four"),
        ({"margin": "3%"}, "a crop or a canvas to keep a margin in"),
        ({"canvas": "100"}, "WIDTHxHEIGHT"),
        ({"canvas": "0x100"}, "WIDTHxHEIGHT"),
        ({"canvas": "-5x100"}, "WIDTHxHEIGHT"),
        ({"canvas": (100,)}, "WIDTHxHEIGHT"),
        ({"canvas": 100}, "WIDTHxHEIGHT"),
        ({"canvas": (1.5, 100)}, "WIDTHxHEIGHT"),
        ({"canvas": "20000x5001"}, "at most 100 megapixels; received 20000x5001"),
        ({"canvas": "100x100", "margin": "50px"}, "margins that leave room on a canvas of 100x100"),
        ({"canvas": "100x100", "scale": "0%"}, "a scale from 1% to 100%"),
        ({"canvas": "100x100", "scale": "101%"}, "a scale from 1% to 100%"),
        ({"canvas": "100x100", "scale": "80"}, "a scale from 1% to 100%"),
        ({"canvas": "100x100", "scale": 0.8}, "a scale from 1% to 100%"),
        ({"canvas": "100x100", "position": "middle"}, "a position as center"),
        ({"canvas": "100x100", "position": "top bottom"}, "a position as center"),
        ({"canvas": "100x100", "position": "101%"}, "a position as center"),
        ({"canvas": "100x100", "position": "top 20%"}, "a position as center"),
        ({"canvas": "100x100", "position": ""}, "a position as center"),
        ({"canvas": "100x100", "position": "original"}, "a position on the canvas"),
        ({"crop": True, "scale": "80%"}, "a canvas to scale and position"),
        ({"crop": True, "position": "top"}, "a canvas to scale and position"),
        ({"shadow": "hard"}, "a shadow out of off, soft"),
    ],
)
def test_nonsense_is_one_sentence(options, message):
    with pytest.raises(UsageError, match="^Expected") as told:
        Framing.of(**options)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": True, "margin": "9999px"}, "at most 100 megapixels"),
        ({"canvas": "30x100", "scale": "original"}, "holds the subject of 40x50 at its original size"),
        ({"canvas": "60x60", "scale": "original", "margin": "10px"}, "at its original size"),
        ({"canvas": "100x100", "margin": "9999%"}, "margins that leave room for the subject of 40x50"),
    ],
)
def test_what_shows_on_a_photo_only_is_one_sentence_too(options, message):
    with pytest.raises(UsageError) as told:
        placed(**options)
    assert message in str(told.value)


@pytest.mark.parametrize("shadow", ["off", "soft"])
@pytest.mark.parametrize("scale", ["37%", "100%", "original"])
def test_no_subject_ever_leaves_its_canvas(shadow, scale):
    random = np.random.default_rng(0)
    for _ in range(200):
        width, height, canvas_width, canvas_height = (int(side) for side in random.integers(1, 200, 4))
        if scale == "original":
            canvas_width, canvas_height = canvas_width + width, canvas_height + height
        box = Box(3, 5, width, height)
        position = f"{random.integers(0, 101)}% {random.integers(0, 101)}%"
        options = {"scale": scale, "position": position, "shadow": shadow}
        target, size = placed(box, 300, 300, canvas=(canvas_width, canvas_height), **options)[1:3]
        assert size == (canvas_height, canvas_width)
        assert min(target) >= 0
        assert target.left + target.width <= canvas_width and target.top + target.height <= canvas_height


def test_the_largest_output_is_known_before_the_photo_is_read():
    assert Framing.of(canvas="70x80").largest(10, 20) == 5600
    assert Framing.of(shadow="soft").largest(10, 20) == 200
    assert Framing.of(crop=True, margin="10px 0").largest(10, 20) == 600
    assert Framing.of(crop=True, margin="99999px").largest(10, 20) == 10**8


def test_a_canvas_a_little_too_large_is_told_by_how_much():
    with pytest.raises(UsageError, match=r"10001x10000 \(100\.01\)"):
        Framing.of(canvas="10001x10000")
