import subprocess
import sys

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, half_mask, kinds, picture, save, stems, write_pairs
from PIL import Image

from keras_matting.data.sources import read_sample, read_source, read_sources, split
from keras_matting.errors import UsageError


@pytest.fixture
def read(tmp_path):
    """Read a spec with a cache of the test's own."""
    return lambda spec: read_source(str(spec), tmp_path / "cache")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


# Pairs


@pytest.mark.parametrize("spec", ["", "pairs:", "ccp:"])
def test_pairs_are_matched_by_stem_and_keep_their_subfolders(read, data, spec):
    write_pairs(data, ["b.jpg", "sub/a.jpg"])
    source = read(f"{spec}{data}")
    assert (source.kind, source.weight, source.problems) == ("labelled", 1.0, ())
    assert stems(source.samples) == ["b", "sub/a"]
    assert source.samples[1].image == data / "image" / "sub" / "a.jpg"
    assert source.samples[1].alpha == data / "mask" / "sub" / "a.png"
    rgb, alpha = read_sample(source.samples[1])
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(alpha, np.asarray(half_mask()))


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("image", "alpha")])
def test_other_usual_folder_names_are_taken(read, data, images, masks):
    save(picture(), data / images / "a.png")
    save(half_mask(), data / masks / "a.png")
    assert stems(read(data).samples) == ["a"]


def test_of_several_folders_of_photos_or_masks_one_is_read_and_the_others_are_told(read, data):
    write_pairs(data, ["a"])
    for name in ("images", "masks", "alpha"):
        save(half_mask(), data / name / "a.png")
    source = read(data)
    assert source.samples[0].alpha == data / "mask" / "a.png"
    assert kinds(source) == [("other folder", name) for name in ("images", "masks", "alpha")]
    assert str(data / "alpha") in source.problems[2].detail


def test_outlines_in_the_place_of_a_mask_are_named(read, data):
    write_pairs(data, ["a", "b", "c"])
    for name in ("a", "b"):
        (data / "mask" / f"{name}.json").write_text("{}")  # as outlining tools leave them beside what they export
    (data / "mask" / "b.png").unlink()
    source = read(data)
    assert kinds(source) == [("image without mask", "b")]
    assert f"{data / 'mask' / 'b.json'} is not read: export it" in source.problems[0].detail


def test_what_lacks_its_other_half_is_left_out_and_told(read, data):
    write_pairs(data, ["a", "b", "c"])
    (data / "mask" / "b.png").unlink()
    (data / "image" / "c.png").unlink()
    source = read(data)
    assert stems(source.samples) == ["a"]
    assert kinds(source) == [("image without mask", "b"), ("mask without image", "c")]


def test_a_mask_of_another_size_is_left_out_and_told(read, data):
    write_pairs(data, ["a", "b"])
    save(half_mask((WIDTH, HEIGHT + 1)), data / "mask" / "b.png")
    source = read(data)
    assert kinds(source) == [("size mismatch", "b")]
    assert "24x16, its mask 24x17" in source.problems[0].detail
    assert stems(source.samples) == ["a"]


def test_of_one_name_in_two_formats_one_is_left_out_and_told(read, data):
    write_pairs(data, ["a"])
    save(picture(), data / "image" / "a.jpg")
    source = read(data)
    assert kinds(source) == [("same name", "a")]
    assert source.samples[0].image.name == "a.jpg"


def test_unreadable_files_are_left_out_and_told(read, data):
    write_pairs(data, ["a", "b", "c"])
    (data / "image" / "b.png").write_bytes(b"no image")
    (data / "mask" / "c.png").write_bytes(b"")
    source = read(data)
    assert stems(source.samples) == ["a"]
    assert kinds(source) == [("unreadable", "b"), ("unreadable", "c")]
    assert "mask" in source.problems[1].detail


def test_hidden_files_are_not_read(read, data):
    write_pairs(data, ["a", ".b", ".c/d"])
    assert stems(read(data).samples) == ["a"]


def test_nothing_usable_is_an_error_that_names_the_first_problem(read, data):
    write_pairs(data, ["a"])
    save(half_mask((5, 5)), data / "mask" / "a.png")
    with pytest.raises(UsageError, match="1 with problems and no other, the first: size mismatch"):
        read(data)


# Lists


def write_list(data, text, name):
    write_pairs(data, ["a", "b"])
    path = data / name
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "Image,alpha,note\nimage/a.png,mask/a.png,x\nimage/b.png, mask/b.png,\n"),
        ("list.csv", "mask,image\nmask/a.png,image/a.png\nmask/b.png,image/b.png"),
        (
            "list.jsonl",
            '{"image": "image/a.png", "alpha": "mask/a.png"}\n\n{"image": "image/b.png", "mask": "mask/b.png"}',
        ),
    ],
)
def test_lists_name_files_relative_to_their_folder(read, data, name, text):
    source = read(f"list:{write_list(data, text, name)}")
    assert (source.kind, stems(source.samples)) == ("labelled", ["image/a", "image/b"])
    assert source.samples[1].alpha == data / "mask" / "b.png"


@pytest.mark.parametrize("column", ["alpha", "mask"])
def test_a_list_without_alphas_is_unlabelled(read, data, column):
    path = write_list(data, f"image,{column}\nimage/a.png,\nimage/b.png,", "list.csv")
    source = read(f"list:{path}")
    assert source.kind == "unlabelled"


def test_columns_that_might_be_the_alpha_of_a_list_without_one_are_told(read, data):
    write_pairs(data, ["a"])
    (data / "list.csv").write_text("image,label\nimage/a.png,mask/a.png\n")
    source = read(f"list:{data}/list.csv")
    assert (source.kind, kinds(source)) == ("unlabelled", [("unknown column", "label")])
    (data / "list.csv").write_text("image,label,mask\nimage/a.png,shirt,mask/a.png\n")
    assert read(f"list:{data}/list.csv").problems == ()


def test_a_list_tells_missing_files_and_repeated_photos(read, data):
    text = "image,alpha\nimage/a.png,mask/a.png\nimage/a.png,mask/a.png\nimage/b.png,mask/c.png\n"
    source = read(f"list:{write_list(data, text, 'list.csv')}")
    assert kinds(source) == [("same name", "image/a"), ("missing file", "image/b")]
    assert stems(source.samples) == ["image/a"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "image,alpha\nimage/a.png,mask/a.png\nimage/b.png,", "alpha in every row .* row 2 has none"),
        ("l.csv", "photo,truth\nimage/a.png,b", "column image .* row 1 has none, its columns: photo, truth"),
        ("l.csv", "", "column image .* no rows"),
        ("l.jsonl", "image/a.png", "one JSON object a line"),
        ("l.jsonl", "[1]", "one JSON object a line"),
        ("l.jsonl", '{"image": 3, "alpha": "mask/a.png"}', "paths under image and alpha .* received 3"),
        ("l.txt", "image/a.png", "as .csv or .jsonl"),
    ],
)
def test_a_malformed_list_is_an_error(read, data, name, text, message):
    with pytest.raises(UsageError, match=message):
        read(f"list:{write_list(data, text, name)}")


# Composites


def write_composite(data, cutouts=3, backgrounds=3):
    for number in range(cutouts):
        save(picture(number, mode="RGBA"), data / "cut" / f"c{number}.png")
    for number in range(backgrounds):
        save(picture(number, (30, 20)), data / "bg" / f"b{number}.jpg")
    return f"composite:{data}/cut,{data}/bg"


def test_cutouts_carry_their_own_truth(read, data):
    source = read(write_composite(data))
    assert (source.kind, stems(source.samples), stems(source.backgrounds)) == (
        "composite",
        ["c0", "c1", "c2"],
        ["b0", "b1", "b2"],
    )
    assert source.samples[0].alpha is None
    rgb, alpha = read_sample(source.samples[0])
    np.testing.assert_array_equal(np.dstack([rgb, alpha]), np.asarray(picture(mode="RGBA")))


def test_cutouts_of_other_formats_become_rgba_png_and_opaque_ones_are_told(read, data):
    spec = write_composite(data, 1)
    save(picture(5, mode="RGBA"), data / "cut" / "webp.webp", lossless=True, exact=True)
    save(picture(6), data / "cut" / "opaque.jpg")
    source = read(spec)
    assert kinds(source) == [("no transparency", "opaque")]
    converted = Image.open(source.samples[1].image)
    assert (converted.format, converted.mode) == ("PNG", "RGBA")
    np.testing.assert_array_equal(np.asarray(converted), np.asarray(picture(5, mode="RGBA")))


def test_a_composite_without_usable_backgrounds_is_an_error(read, data):
    spec = write_composite(data, 1, 1)
    (data / "bg" / "b0.jpg").write_bytes(b"no image")
    with pytest.raises(UsageError, match="unreadable"):
        read(spec)
    with pytest.raises(UsageError, match="composite:RGBA_DIR,BACKGROUNDS_DIR"):
        read(f"composite:{data}/cut")


# Specs


def test_several_specs_become_weighted_sources(data, tmp_path):
    write_pairs(data, ["a"])
    sources = read_sources([f"{data}@2", f"unlabelled:{data}/image@0.5", str(data)], tmp_path / "cache")
    assert [source.weight for source in sources] == [2, 0.5, 1]
    assert [source.kind for source in sources] == ["labelled", "unlabelled", "labelled"]
    assert sources[1].name == f"unlabelled:{data}/image"


def test_a_folder_may_have_signs_of_the_grammar_in_its_name(read, tmp_path):
    for name in ("me@2", "a:b", "x,y"):
        write_pairs(tmp_path / name, ["a"])
        assert read(tmp_path / name).weight == 1
        assert read(f"pairs:{tmp_path / name}@3").weight == 3


def test_a_sign_within_a_path_is_no_weight(read, tmp_path):
    spec = write_composite(tmp_path / "me@corp")
    assert read(spec).weight == 1
    assert read(f"{spec}@3").weight == 3
    assert read(f"{spec}@3").name == spec
    with pytest.raises(UsageError, match=r"me@corp/none.* does not exist"):
        read(f"pairs:{tmp_path}/me@corp/none")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{data}@much", "weight above 0 .* received 'much'"),
        ("{data}@0", "weight above 0"),
        ("{data}@inf", "weight above 0"),
        ("{data}@nan", "weight above 0"),
        ("{data}@", "weight above 0"),
        ("coco:{data}", "KIND one of pairs, ccp, fashionpedia, list, composite, unlabelled"),
        ("pairs:", "Expected a path after the kind"),
        ("{data}/none", "does not exist"),
        ("{data}/mask/a.png", "is a file"),
        ("{data}/image", "folders image and mask .* unlabelled:DIR"),
        ("unlabelled:{data}/empty", "found none"),
        ("list:{data}/none.csv", "No such file"),
    ],
)
def test_a_wrong_spec_is_an_error(read, data, spec, message):
    write_pairs(data, ["a"])
    (data / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        read(spec.format(data=data))


# Split


def many(data, count):
    write_pairs(data, [f"{number:03}" for number in range(count)])
    return data


def test_a_split_is_disjoint_complete_and_repeatable(read, data):
    source = read(many(data, 60))
    train, validation = split(source, 0.25)
    assert {*train.samples} | {*validation.samples} == {*source.samples}
    assert len(train.samples) + len(validation.samples) == 60
    assert 5 <= len(validation.samples) <= 25
    assert split(source, 0.25) == (train, validation)
    assert split(source, 0.25, "other") != (train, validation)


def test_added_files_move_no_file_to_the_other_side(read, data):
    before = split(read(many(data, 40)), 0.25)
    after = split(read(many(data, 60)), 0.25)
    for old, new in zip(before, after, strict=True):
        assert {*old.samples} < {*new.samples}


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_each_side_gets_one_sample_at_least(read, data, fraction):
    assert sorted(len(part.samples) for part in split(read(many(data, 3)), fraction)) == [1, 2]


def test_validation_backgrounds_are_unseen_in_training(read, data):
    source = read(write_composite(data, 8, 8))
    train, validation = split(source, 0.5)
    assert train.kind == validation.kind == "composite"
    for part in ("samples", "backgrounds"):
        seen, unseen = {*getattr(train, part)}, {*getattr(validation, part)}
        assert seen and unseen
        assert not seen & unseen
        assert seen | unseen == {*getattr(source, part)}


def test_a_fraction_of_nothing_keeps_everything_for_training(read, data):
    source = read(write_composite(data))
    train, validation = split(source, 0)
    assert train == source
    assert validation.samples == ()


def test_what_cannot_be_split_is_an_error(read, data):
    source = read(many(data, 1))
    for fraction, message in ((0.5, "2 files at least"), (1, "below 1"), (-0.1, "from 0")):
        with pytest.raises(UsageError, match=message):
            split(source, fraction)


def test_reading_data_loads_no_framework(data, tmp_path):
    write_pairs(data, ["a"])
    script = (
        "import sys; from keras_matting.data.sources import read_source\n"
        f"read_source({str(data)!r}, {str(tmp_path)!r})\n"
        "loaded = {'tensorflow', 'keras', 'torch', 'jax', 'pycocotools', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_clothing_co_parsing_at_hand_is_whole(read, shared_data):
    source = read(f"ccp:{shared_data / 'ccp'}")
    assert (len(source.samples), source.problems) == (900, ())
