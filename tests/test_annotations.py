import json
import os
import sys

import numpy as np
import pytest
from data_files import HEIGHT, WIDTH, kinds, picture, save, stems

from keras_matting.data.sources import read_sample, read_source
from keras_matting.errors import UsageError


@pytest.fixture
def read(tmp_path):
    """Read a spec with a cache of the test's own."""
    return lambda spec: read_source(str(spec), tmp_path / "cache")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


# Fashionpedia

SQUARE = [[2, 2, 10, 2, 10, 8, 2, 8]]
CATEGORIES = [
    {"id": 0, "name": "shirt, blouse", "supercategory": "upperbody"},
    {"id": 6, "name": "pants", "supercategory": "lowerbody"},
    {"id": 31, "name": "sleeve", "supercategory": "garment parts"},
]


def region(top, left, bottom, right):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def compressed(mask):
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def uncompressed(mask):
    flat = np.r_[0, mask.T.ravel(), 2]
    changes = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.r_[0, changes]).tolist()}


def write_fashionpedia(data, annotations, categories=CATEGORIES, images=("one.jpg", "two.jpg")):
    for number, name in enumerate(images):
        save(picture(number), data / "photos" / name)
    content = {
        "images": [
            {"id": 100 + number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(images)
        ],
        "categories": categories,
        "annotations": [
            {"id": number, "image_id": 100 + image, "category_id": category, "segmentation": segmentation}
            for number, (image, category, segmentation) in enumerate(annotations)
        ],
    }
    path = data / "train.json"
    path.write_text(json.dumps(content))
    return f"fashionpedia:{path},{data}/photos"


def test_polygons_and_both_run_lengths_are_united(read, data):
    low, right = region(10, 0, 16, 4), np.triu(region(0, 12, 16, 24), 14)
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (0, 6, uncompressed(low)), (0, 0, compressed(right))])
    source = read(spec)
    assert (source.kind, stems(source.samples), source.problems) == ("labelled", ["one"], ())
    expected = region(2, 2, 8, 10) | low | right
    np.testing.assert_array_equal(read_sample(source.samples[0])[1], expected * 255)


def test_a_polygon_of_two_points_is_no_box(read, data):
    spec = write_fashionpedia(data, [(0, 0, [[0, 0, 20, 12], *SQUARE])])
    np.testing.assert_array_equal(read_sample(read(spec).samples[0])[1], region(2, 2, 8, 10) * 255)


def test_parts_of_garments_are_left_out_unless_named(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (0, 31, uncompressed(region(10, 0, 16, 4)))])
    np.testing.assert_array_equal(read_sample(read(spec).samples[0])[1], region(2, 2, 8, 10) * 255)
    np.testing.assert_array_equal(read_sample(read(f"{spec},sleeve").samples[0])[1], region(10, 0, 16, 4) * 255)


@pytest.mark.parametrize("name", ["person", "thing", "shirtless"])
def test_categories_that_are_not_fashionpedia_s_are_to_be_named(read, data, name):
    categories = [*CATEGORIES, {"id": 7, "name": name, "supercategory": "other"}]
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (1, 7, SQUARE)], categories)
    with pytest.raises(UsageError, match=f"there are shirt, blouse; pants; sleeve; {name}"):
        read(spec)
    assert stems(read(f"{spec},{name}").samples) == ["two"]
    assert stems(read(f"{spec},shirt").samples) == ["one"]


def test_the_only_category_is_the_subject(read, data):
    spec = write_fashionpedia(data, [(0, 7, SQUARE)], [{"id": 7, "name": "product"}])
    assert stems(read(spec).samples) == ["one"]


def test_parts_are_known_by_name_where_the_json_has_no_supercategories(read, data):
    bare = [{"id": category["id"], "name": category["name"]} for category in CATEGORIES]
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (0, 31, uncompressed(region(10, 0, 16, 4)))], bare)
    np.testing.assert_array_equal(read_sample(read(spec).samples[0])[1], region(2, 2, 8, 10) * 255)


@pytest.mark.parametrize("names", ["shirt", "Blouse", "shirt, blouse"])
def test_categories_are_chosen_by_name_or_part_of_a_name(read, data, names):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (1, 6, SQUARE)])
    assert stems(read(f"{spec},{names}").samples) == ["one"]


def test_an_unknown_category_is_an_error_that_lists_the_names(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE)])
    with pytest.raises(UsageError, match="shirt, blouse; pants; sleeve. Received trousers"):
        read(f"{spec},trousers,pants")


def test_the_json_is_read_once(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE)])
    first = read(spec)
    path = data / "train.json"
    stat = path.stat()
    path.write_bytes(b" " * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read(spec) == first
    path.write_text("{}")
    with pytest.raises(UsageError, match="COCO-style JSON"):
        read(spec)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [HEIGHT, WIDTH], "counts": [5, 10]},
        {"size": [HEIGHT, WIDTH], "counts": compressed(region(0, 0, 4, 4))["counts"][:-1]},
        {"size": [HEIGHT, WIDTH], "counts": "\x00"},
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
        {"counts": [HEIGHT * WIDTH]},
        [["a"] * 6],
    ],
)
def test_damaged_annotations_leave_out_their_image_only(read, data, segmentation):
    source = read(write_fashionpedia(data, [(0, 0, segmentation), (1, 0, SQUARE)]))
    assert stems(source.samples) == ["two"]
    assert kinds(source) == [("unreadable", "one")]


NAN, INF = float("nan"), float("inf")
RUNS = uncompressed(region(0, 0, 4, 4))


@pytest.mark.parametrize(
    "segmentation",
    [
        *([[2, 2, 10, 2, 10, 8, 2, value]] for value in (NAN, INF, -INF, 1e12, -1e6, 10**400, True, "8", None, [8])),
        [[2, 2, 10, 2, 10, 8, 2]],
        [[2, 2, 10, 2]],
        [[]],
        [SQUARE],
        SQUARE[0],
        "polygon",
        7,
        [RUNS],
        {**RUNS, "counts": [-4, *RUNS["counts"][1:-1], RUNS["counts"][-1] + 4]},
        {**RUNS, "counts": [1.5, *RUNS["counts"]]},
        {**RUNS, "counts": [NAN]},
        {**RUNS, "counts": None},
        {**RUNS, "counts": ""},
        {**RUNS, "counts": compressed(region(0, 0, 4, 4))["counts"] + "é"},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": None, "counts": RUNS["counts"]},
        {"size": [HEIGHT, WIDTH], "counts": "L" + chr(48 + 0x1C) + "0"},  # a run below 0, in a sum that fits
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numbers_that_cannot_be_drawn_leave_out_their_image_only(read, data, segmentation):
    """Fault: coco_polygon_kills_the_process."""
    source = read(write_fashionpedia(data, [(0, 0, SQUARE), (0, 0, segmentation), (1, 0, SQUARE)]))
    assert stems(source.samples) == ["two"]
    assert kinds(source) == [("unreadable", "one")]
    assert "annotation 1: " in source.problems[0].detail


def test_polygons_that_leave_the_image_a_little_are_clipped(read, data):
    spec = write_fashionpedia(data, [(0, 0, [[-3, -2, 30, -2, 30, 20, -3, 20]])])
    np.testing.assert_array_equal(read_sample(read(spec).samples[0])[1], np.full((HEIGHT, WIDTH), 255))


@pytest.mark.parametrize("bare", [None, [], "missing"])
def test_an_annotation_without_a_segmentation_takes_no_photo_from_the_others(read, data, bare):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (0, 0, bare), (1, 0, bare)])
    if bare == "missing":
        edit(data, lambda content: [annotation.pop("segmentation") for annotation in content["annotations"][1:]])
    source = read(spec)
    assert stems(source.samples) == ["one"]
    np.testing.assert_array_equal(read_sample(source.samples[0])[1], region(2, 2, 8, 10) * 255)
    assert kinds(source) == [("no segmentation", "two")]


def edit(data, change):
    """Change the annotations of a set that is written."""
    path = data / "train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content["images"][0].update(height=10**9, width=10**9), ("unreadable", "one")),
        (lambda content: content["images"][0].update(height=NAN), ("unreadable", "one")),
        (lambda content: content["images"][0].update(height=-1), ("unreadable", "one")),
        (lambda content: content["images"][0].update(height="16"), ("unreadable", "one")),
        (lambda content: content["images"][0].pop("width"), ("unreadable", "one")),
        (lambda content: content["images"][0].update(width=WIDTH + 1), ("size mismatch", "one")),
        (lambda content: content["images"][0].pop("file_name"), ("unreadable", "image 100")),
        (lambda content: content["images"][0].update(file_name=7), ("unreadable", "image 100")),
        (lambda content: content["images"][0].update(file_name="x" * 999), ("mask without image", "x" * 999)),
        (lambda content: content["images"].append({**content["images"][0]}), ("same id", "one")),
        (lambda content: content["images"].append({**content["images"][0], "id": 7}), ("same name", "one")),
        (lambda content: content["annotations"][0].pop("image_id"), ("annotation without image", "annotation 0")),
        (lambda content: content["annotations"][0].update(image_id=[1]), ("annotation without image", "annotation 0")),
        (lambda content: content["annotations"][0].update(image_id=9), ("annotation without image", "annotation 0")),
        (lambda content: content["annotations"][0].update(category_id=99), ("unknown category", "99")),
        (lambda content: content["annotations"][0].pop("category_id"), ("unknown category", "None")),
        (lambda content: content["annotations"].__setitem__(0, "none"), ("unreadable", "annotation 0")),
    ],
)
def test_a_damaged_entry_is_told_and_the_rest_is_used(read, data, change, problem):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (1, 0, SQUARE)])
    edit(data, change)
    source = read(spec)
    assert stems(source.samples) == ["two"]
    assert problem in kinds(source)


def test_an_entry_without_an_id_is_told(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (1, 0, SQUARE)])
    edit(data, lambda content: content["images"][0].pop("id"))
    assert stems(read(spec).samples) == ["two"]


def test_file_names_may_have_folders(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE)], images=("a/one.jpg",))
    assert stems(read(spec).samples) == ["a/one"]


def test_json_of_another_shape_is_one_sentence(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE)])
    for text in ('{"images": 3, "annotations": [], "categories": []}', "[]", "[" * 100_000, "null", "\\"):
        (data / "train.json").write_text(text)
        with pytest.raises(UsageError, match="COCO-style JSON"):
            read(spec)


def test_an_annotated_photo_that_is_missing_is_told(read, data):
    spec = write_fashionpedia(data, [(0, 0, SQUARE), (1, 0, SQUARE)])
    (data / "photos" / "one.jpg").unlink()
    source = read(spec)
    assert stems(source.samples) == ["two"]
    assert kinds(source) == [("mask without image", "one")]


def test_missing_annotations_and_a_missing_image_folder_are_errors(read, data):
    (data / "photos").mkdir(parents=True)
    with pytest.raises(UsageError, match="there is no such file"):
        read(f"fashionpedia:{data}/none.json,{data}/photos")
    with pytest.raises(UsageError, match="fashionpedia:JSON,IMAGES"):
        read(f"fashionpedia:{data}/none.json")


@pytest.mark.parametrize("package", ["pycocotools", "scipy"])
def test_a_missing_package_is_an_error_that_names_the_extra(read, data, package, monkeypatch):
    spec = write_fashionpedia(data, [(0, 0, SQUARE)]) if package == "pycocotools" else write_ccp(data, {})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"{package} is not installed; pip install 'keras-matting\[train\]'"):
        read(spec)


# Clothing Co-Parsing


def write_ccp(data, labels, photos=("0001", "0002")):
    from scipy.io import savemat

    for number, stem in enumerate(photos):
        save(picture(number), data / "photos" / f"{stem}.jpg")
    folder = data / "annotations" / "pixel-level"
    folder.mkdir(parents=True)
    for stem, array in labels.items():
        savemat(folder / f"{stem}.mat", {"groundtruth": array})
    return f"ccp:{data}"


def test_label_maps_become_clothing_without_hair_and_skin(read, data):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:4], labels[4:8], labels[8:10], labels[10:12] = 19, 41, 14, 58
    source = read(write_ccp(data, {"0001": labels}))
    assert (stems(source.samples), source.problems) == (["0001"], ())  # 0002 has no label map, as half of the set
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[8:12] = 255
    np.testing.assert_array_equal(read_sample(source.samples[0])[1], expected)


@pytest.mark.parametrize("label", [-1, 59, 255])
def test_label_maps_of_other_labels_are_told(read, data, label):
    labels = np.full((HEIGHT, WIDTH), label, np.int16)
    source = read(write_ccp(data, {"0001": labels, "0002": np.ones((HEIGHT, WIDTH), np.uint8)}))
    assert stems(source.samples) == ["0002"]
    assert kinds(source) == [("unreadable", "0001")]


def test_damaged_and_orphaned_label_maps_are_told(read, data):
    good = np.ones((HEIGHT, WIDTH), np.uint8)
    spec = write_ccp(data, {"0001": good, "0003": good, "0002": good.astype(float)}, ("0001", "0002", "0004"))
    (data / "annotations" / "pixel-level" / "0004.mat").write_bytes(b"no label map")
    source = read(spec)
    assert stems(source.samples) == ["0001"]
    assert sorted(kinds(source)) == [("mask without image", "0003"), ("unreadable", "0002"), ("unreadable", "0004")]
