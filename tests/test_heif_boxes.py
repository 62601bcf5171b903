"""Which image of an AVIF or HEIC a word on colours is about."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from keras_matting.errors import ImageError
from keras_matting.photos import heif_boxes
from keras_matting.photos.files import decode

P3, PQ = b"nclx" + struct.pack(">3HB", 12, 13, 6, 128), b"nclx" + struct.pack(">3HB", 9, 16, 9, 128)
SIZE = b"ispe", bytes(4) + struct.pack(">2I", 64, 64)


def box(kind, content, large=False):
    head = struct.pack(">I4sQ", 1, kind, 16 + len(content)) if large else struct.pack(">I4s", 8 + len(content), kind)
    return head + content


def full(kind, content, version=0, flags=0):
    return box(kind, bytes([version, 0, 0, flags]) + content)


def file_of(properties, associations, primary=1, tiles=(), version=0, wide=False, large=False):
    """Return the boxes of a file: `properties` (type, content), `associations` {item: indices of them from 1}."""
    number = "I" if version else "H"
    entries = b"".join(
        struct.pack(f">{number}B", item, len(indices))
        + struct.pack(
            f">{len(indices)}{'H' if wide else 'B'}", *(index | (0x8000 if wide else 0x80) for index in indices)
        )
        for item, indices in associations.items()
    )
    ipma = full(b"ipma", struct.pack(">I", len(associations)) + entries, version, int(wide))
    ipco = box(b"ipco", b"".join(box(*each) for each in properties), large)
    reference = box(b"dimg", struct.pack(f">{number}H{len(tiles)}{number}", primary, len(tiles), *tiles))
    children = [full(b"pitm", struct.pack(f">{number}", primary), version), box(b"iprp", ipco + ipma)]
    children += [full(b"iref", box(b"thmb", struct.pack(f">{number}H{number}", 9, 1, 1)) + reference, version)]
    return box(b"ftyp", b"heic") + full(b"meta", b"".join(children)) + box(b"mdat", b"colrnclx" + bytes(99))


FORMS = [{}, {"version": 1}, {"wide": True}, {"version": 1, "wide": True, "large": True}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_primary_image_s_colours_count_whatever_else_the_file_holds(form):
    """As phones write them: the photo in its colours, beside it one in high dynamic range."""
    properties = [(b"colr", PQ), SIZE, (b"colr", P3)]
    assert heif_boxes.colour_boxes(file_of(properties, {2: [1, 2], 1: [2, 3]}, **form)) == [P3]
    assert heif_boxes.colour_boxes(file_of(properties, {1: [2], 2: [1]}, **form)) == []
    both = [(b"colr", b"profP"), (b"colr", P3)]
    assert heif_boxes.colour_boxes(file_of(both, {1: [1, 2]}, **form)) == [b"profP", P3]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_grid_has_the_colours_of_its_tiles_where_it_has_none_itself(form):
    properties = [(b"colr", PQ), (b"colr", P3)]
    associations = {5: [1], 2: [2], 3: [2]}
    assert heif_boxes.colour_boxes(file_of(properties, associations, 1, (2, 3), **form)) == [P3]
    assert heif_boxes.colour_boxes(file_of(properties, associations | {1: [1]}, 1, (2, 3), **form)) == [PQ]


def test_damaged_boxes_have_no_colours():
    whole = file_of([(b"colr", P3), SIZE], {1: [1, 2]}, tiles=(2, 3))
    end = whole.index(b"mdat") - 4
    for length in range(0, end - 1, 3):
        assert heif_boxes.colour_boxes(whole[:length]) == []
    random = np.random.default_rng(0)
    for _ in range(2000):
        broken = bytearray(whole)
        broken[random.integers(end)] = random.integers(256)
        assert len(heif_boxes.colour_boxes(bytes(broken))) <= 2


@pytest.mark.parametrize("primary", [0, 1])
def test_an_image_in_high_dynamic_range_beside_the_photo_does_not_refuse_it(photo, primary):
    heif = pytest.importorskip("pillow_heif")
    file = heif.HeifFile()
    for number, transfer in enumerate((13, 16) if primary == 0 else (16, 13)):
        image = file.add_from_pillow(Image.fromarray(photo if number == primary else 255 - photo))
        words = "color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag"
        image.info["nclx_profile"] = dict(zip(words, (12, transfer, 6, 1), strict=True))
    for shown in (primary, 1 - primary):
        out = io.BytesIO()
        file.save(out, quality=95, primary_index=shown, save_nclx_profile=True)
        assert out.getvalue().count(b"colrnclx") == 2
        if shown == primary:
            assert np.abs(decode(out.getvalue()).rgb.astype(int) - photo).mean() < 3
        else:
            with pytest.raises(ImageError, match="HDR"):
                decode(out.getvalue())
