"""Clips in every format, decoded again: alpha, frames, time stamps, sound, colours, rotation."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import clips
import cv2
import numpy as np
import pytest
from clips import BT601, BT709, FULL, LIMITED, Read, picture, write_clip

import keras_matting
from keras_matting.cli import main
from keras_matting.matting import OutputOptions, Session, read_photo
from keras_matting.photos import imaging
from keras_matting.video.reading import Clip, upright
from keras_matting.video.run import plan, run

VFR = (0, 1, 2, 4, 5, 10)  # in 30ths of a second
VFR_S = [at / 30 for at in VFR]


@pytest.fixture(scope="module")
def session(one_layer_dir):
    with Session(one_layer_dir, "onnx-cpu") as session:
        yield session


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A clip of a variable rate with AAC sound."""
    return write_clip(tmp_path_factory.mktemp("clips") / "talking.mp4", pts=VFR, sound="aac")


@pytest.fixture
def cut_out(session):
    """Matte a clip and return the output's path; keywords are those of `OutputOptions`."""

    def cut_out(source, target, kind="rgba", background=None, smooth="off", overwrite=False):
        job = plan(source, target, OutputOptions(kind, background), smooth, overwrite)
        with Clip(source) as clip:
            return run(session, clip, job).output

    return cut_out


@pytest.fixture
def told(caplog):
    """Return what the library has logged."""
    caplog.set_level(logging.INFO, "keras_matting")
    return lambda: " ".join(record.getMessage() for record in caplog.records)


def photos_of(path):
    with Clip(path) as clip:
        return [frame.photo for frame in clip.frames()]


def mean_error(image, expected):
    assert image.shape == expected.shape
    return np.abs(image.astype(float) - expected).mean()


@pytest.mark.parametrize(
    ("name", "decoder", "codec", "pixels", "error"),
    [("x.webm", "libvpx-vp9", "vp9", "yuva420p", 3), ("x.mov", None, "prores", "yuva444p12le", 1)],
)
def test_alpha_and_colours_and_time_stamps_are_there_again(
    cut_out, session, talking, tmp_path, name, decoder, codec, pixels, error
):
    read = Read(cut_out(talking, tmp_path / name), "rgba", decoder)
    assert (read.codec, read.formats) == (codec, {pixels})
    assert read.times == pytest.approx(VFR_S, abs=0.001)  # WebM has milliseconds
    assert read.duration_s == pytest.approx(11 / 30, abs=0.03)  # sound ends with a whole packet
    expected = [session.matte(photo) for photo in photos_of(talking)]
    assert len(read.images) == len(expected)
    for image, rgba in zip(read.images, expected, strict=True):
        assert mean_error(image[..., 3], rgba[..., 3]) < error
        assert mean_error(image[..., :3], rgba[..., :3]) < 3 * error
    assert np.ptp(expected[0][..., 3]) > 50  # the mattes are not flat, so the comparison tells


@pytest.mark.parametrize("name", ["x.mov", "x.mp4"])
def test_sound_is_copied_as_it_is(cut_out, talking, tmp_path, name):
    output = cut_out(talking, tmp_path / name, "mask")
    assert Read(output).sounds == ["aac"]
    assert clips.sound_packets(output) == clips.sound_packets(talking)


def test_sound_that_webm_holds_is_copied_into_it(cut_out, tmp_path):
    source = write_clip(tmp_path / "a.mkv", sound="libopus")
    output = cut_out(source, tmp_path / "x.webm")
    assert Read(output).sounds == ["opus"]
    assert clips.sound_packets(output) == clips.sound_packets(source)


@pytest.mark.parametrize(
    ("name", "sound", "expected"),
    [("x.webm", "aac", "opus"), ("x.mp4", "pcm_s16le", "aac"), ("x.mov", "libopus", "pcm_s16le")],
)
def test_sound_that_a_container_cannot_hold_is_encoded_anew_and_told(cut_out, tmp_path, told, name, sound, expected):
    source = write_clip(tmp_path / "a.mkv", sound=sound)
    output = cut_out(source, tmp_path / name, "mask")
    assert Read(output).sounds == [expected]
    assert f"cannot hold the clip's sound ({clips.codec_of(sound)})" in told()
    before, after = clips.samples(source), clips.samples(output)
    assert abs(len(before) - len(after)) < 2500  # of 48,000 a second: a packet, and what encoders add in front
    middle = slice(3000, len(before) - 3000)
    assert np.std(after[middle]) == pytest.approx(np.std(before[middle]), rel=0.1)


def test_a_folder_has_no_sound_which_is_told(cut_out, talking, tmp_path, told):
    cut_out(talking, tmp_path / "frames")
    assert "A folder of PNGs has no sound" in told()


@pytest.mark.parametrize("kind", ["mask", "on-color", "on-image"])
@pytest.mark.parametrize("name", ["x.mp4", "x.webm", "x.mov"])
def test_every_container_holds_what_has_no_alpha(cut_out, session, tmp_path, kind, name):
    source = write_clip(tmp_path / "a.mp4")
    background = {"on-color": (0, 0, 255), "on-image": picture(20, (90, 60))}.get(kind)
    read = Read(cut_out(source, tmp_path / name, kind, background))
    assert read.formats <= {"yuv420p", "yuv444p10le", "yuv444p12le"}
    for image, photo in zip(read.images, photos_of(source), strict=True):
        expected = session.matte(photo, OutputOptions(kind, background))
        assert mean_error(image, np.dstack([expected] * 3) if kind == "mask" else expected) < 8
    if kind == "on-image":
        assert mean_error(read.images[0], imaging.cover(background, (48, 64))) < mean_error(read.images[0], picture(0))


@pytest.mark.parametrize(("kind", "dtype"), [("rgba", np.uint8), ("mask", np.uint8), ("matte16", np.uint16)])
def test_a_folder_has_a_png_of_each_frame_and_when_it_is_shown(cut_out, session, talking, tmp_path, kind, dtype):
    folder = cut_out(talking, tmp_path / "frames", kind)
    expected = [session.matte(photo, OutputOptions(kind)) for photo in photos_of(talking)]
    names = [f"{number:06}.png" for number in range(1, 7)]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "timestamps.txt"]
    for name, image in zip(names, expected, strict=True):
        written = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        assert written.dtype == dtype
        if kind == "rgba":
            written = cv2.cvtColor(written, cv2.COLOR_BGRA2RGBA)
        np.testing.assert_array_equal(written, image)
    header, *lines = (folder / "timestamps.txt").read_text().splitlines()
    assert header == "# timestamp format v2"
    assert [float(line) / 1000 for line in lines] == pytest.approx(VFR_S, abs=1e-5)


@pytest.mark.parametrize("rotation", [(90,), (180,), (270,), (0, True), (90, True), (0, False, True)])
def test_frames_come_out_upright_and_stay_so(cut_out, tmp_path, rotation):
    plain = photos_of(write_clip(tmp_path / "plain.mp4"))[1].rgb
    source = write_clip(tmp_path / "turned.mp4", rotation=rotation)
    turned = np.rot90(plain, rotation[0] // 90)
    if rotation[1:2] == (True,):
        turned = turned[:, ::-1]
    if rotation[2:] == (True,):
        turned = turned[::-1]
    np.testing.assert_array_equal(photos_of(source)[1].rgb, turned)
    read = Read(cut_out(source, tmp_path / "x.mov"))
    assert read.rotation == 0
    assert mean_error(read.images[1], turned) < 3


def test_a_display_matrix_that_is_not_quite_upright_turns_to_the_nearest():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    a_bit_off = np.array([[100, -65000, 0], [65000, 90, 0], [0, 0, 1 << 30]], np.int32)
    np.testing.assert_array_equal(upright(image, a_bit_off), np.rot90(image))


def test_pixels_that_are_not_square_stay_so_and_turn_with_the_frame(cut_out, tmp_path):
    source = write_clip(tmp_path / "a.mp4", sample_aspect_ratio=Fraction(4, 3))
    assert Read(cut_out(source, tmp_path / "x.mp4", "mask")).pixel_aspect == Fraction(4, 3)
    source = write_clip(tmp_path / "b.mp4", sample_aspect_ratio=Fraction(4, 3), rotation=(90,))
    assert Read(cut_out(source, tmp_path / "y.mp4", "mask")).pixel_aspect == Fraction(3, 4)


@pytest.mark.parametrize(("rotation", "size"), [((0,), (48, 85)), ((90,), (85, 48))])
def test_pixels_that_are_not_square_become_so_in_webm_and_that_is_told(cut_out, tmp_path, told, rotation, size):
    source = write_clip(tmp_path / "a.mp4", sample_aspect_ratio=Fraction(4, 3), rotation=rotation)
    rgb = photos_of(source)[0].rgb
    read = Read(cut_out(source, tmp_path / "x.webm", "on-image", rgb))  # on itself, so nothing else changes
    assert read.pixel_aspect in (None, 1)
    assert f"frames are stretched, and {rgb.shape[1]}x{rgb.shape[0]} becomes {size[1]}x{size[0]}" in told()
    assert mean_error(read.images[0], cv2.resize(rgb, size[::-1])) < 3


@pytest.mark.parametrize("name", ["x.webm", "x.mp4"])
@pytest.mark.parametrize("space", [BT601, BT709])
@pytest.mark.parametrize("levels", [LIMITED, FULL])
def test_colours_are_read_right_and_space_and_range_are_kept(cut_out, tmp_path, space, levels, name):
    flat = np.full((48, 64, 3), (200, 40, 90), np.uint8)
    source = write_clip(tmp_path / "a.mp4", images=[flat] * 2, pts=(0, 1), colorspace=space, color_range=levels)
    assert mean_error(photos_of(source)[0].rgb, flat) < 2
    output = cut_out(source, tmp_path / name, "on-color", (200, 40, 90))  # on its own colour, so nothing changes
    assert Read(output).tags == (space, levels)
    assert mean_error(photos_of(output)[0].rgb, flat) < 3


@pytest.mark.parametrize("name", ["x.webm", "x.mp4", "x.mov"])
@pytest.mark.parametrize(("levels", "lumas"), [(LIMITED, (16, 86, 102, 235)), (FULL, (0, 86, 128, 255))])
def test_greys_stay_as_they_are(cut_out, tmp_path, levels, lumas, name):
    for luma in lumas:
        grey = luma if levels == FULL else round((luma - 16) * 255 / 219)
        flat = np.full((48, 64, 3), grey, np.uint8)
        source = write_planes(tmp_path / "a.mp4", (luma, 128, 128), levels)
        assert {tuple(pixel) for pixel in photos_of(source)[0].rgb.reshape(-1, 3)} == {(grey,) * 3}
        output = cut_out(source, tmp_path / name, "on-image", flat, overwrite=True)  # on itself, so nothing changes
        written = luma if name != "x.mov" or levels == LIMITED else 16 + luma * 219 / 255  # which is limited
        assert planes_of(output) == pytest.approx((written, 128, 128), abs=0.6 if name == "x.mov" else 0)


def write_planes(path, values, levels):
    """Write a clip of two frames, each of whose planes has one value."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=30, options={"qp": "0"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        track.codec_context.color_range, track.codec_context.colorspace = levels, BT709
        for _ in range(2):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane, value in zip(frame.planes, values, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def planes_of(path):
    """Return the mean of each plane of a clip's first frame, in levels of 8 bits."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    bits = frame.format.components[0].bits
    planes = [np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8) for plane in frame.planes]
    shapes = [(plane.height, plane.line_size // (2 if bits > 8 else 1), plane.width) for plane in frame.planes]
    means = [p.reshape(rows, line)[:, :width].mean() for p, (rows, line, width) in zip(planes, shapes, strict=True)]
    return [mean / 2 ** (bits - 8) for mean in means[:3]]


def test_hdr_is_converted_and_told(cut_out, tmp_path, told):
    source = write_clip(tmp_path / "a.mp4", colorspace=9, color_primaries=9, color_trc=18)
    read = Read(cut_out(source, tmp_path / "x.mp4", "mask"))
    assert read.tags[0] == BT709
    assert "is HDR (HLG): it is converted" in told()


@pytest.mark.parametrize(("name", "size"), [("x.webm", (47, 63)), ("x.mov", (47, 63)), ("x.mp4", (48, 64))])
def test_odd_sides_stay_or_are_padded_and_told(cut_out, tmp_path, told, name, size):
    source = write_clip(tmp_path / "a.mp4", size=(47, 63))
    read = Read(cut_out(source, tmp_path / name, "on-color", (0, 0, 0)))
    assert read.images[0].shape[:2] == size
    assert ("63x47 becomes 64x48" in told()) == (size != (47, 63))
    if size != (47, 63):
        assert mean_error(read.images[0][:, -1], read.images[0][:, -2]) < 3


@pytest.mark.parametrize("name", ["x.webm", "x.mov", "frames"])
@pytest.mark.parametrize("smooth", ["off", "ofd"])
def test_a_clip_of_one_frame_is_a_clip(cut_out, tmp_path, name, smooth):
    source = write_clip(tmp_path / "a.mp4", pts=(0,))
    output = cut_out(source, tmp_path / name, smooth=smooth)
    assert len(list(output.glob("*.png")) if output.is_dir() else Read(output).images) == 1


def test_a_clip_that_begins_late_begins_at_0_with_its_sound(cut_out, tmp_path):
    source = tmp_path / "a.mp4"
    write_clip(source, sound="aac")
    late = remuxed(source, tmp_path / "late.ts", late_s=2)
    assert Read(late).times[0] > 1
    read = Read(cut_out(late, tmp_path / "x.mp4", "mask"))
    assert read.times == pytest.approx([0, 1 / 30, 2 / 30, 3 / 30], abs=0.05)
    assert read.sounds == ["aac"]
    assert abs(clips.sound_packets(tmp_path / "x.mp4")[0][0]) < 0.1


def remuxed(source, target, late_s):
    """Write the same packets into another container, later."""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies = {track.index: new.add_stream_from_template(track, opaque=True) for track in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.pts, packet.dts = (at + round(late_s / packet.time_base) for at in (packet.pts, packet.dts))
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
    return target


def test_a_clip_with_alpha_of_its_own_stays_within_it(cut_out, tmp_path):
    once = cut_out(write_clip(tmp_path / "a.mp4"), tmp_path / "once.webm")
    (first, *_) = photos_of(once)
    assert np.ptp(first.alpha) > 50
    twice = Read(cut_out(once, tmp_path / "twice.webm"), "rgba", "libvpx-vp9")
    assert twice.images[0][..., 3].mean() < 0.8 * first.alpha.mean()


def test_the_command_tells_what_it_reads_and_what_it_wrote(tmp_path, one_layer_dir, capfd):
    source = write_clip(tmp_path / "a.mp4")
    words = [source, tmp_path / "new" / "x.mp4", "--background", "255,255,255", "--model", one_layer_dir]
    assert main(["video", *map(str, words), "--engine", "onnx-cpu"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "a.mp4: 64x48, about 4 frames, 30 frames/s; model one_layer, engine onnx-cpu" in err
    assert "4 frames; " in err and f"-> {tmp_path}/new/x.mp4" in err


def test_from_python_it_is_one_call(tmp_path, one_layer_dir):
    source = write_clip(tmp_path / "a.mp4")
    result = keras_matting.matte_video(source, str(tmp_path / "x.mov"), one_layer_dir, "onnx-cpu", output="mask")
    assert (result.frames, result.damaged, result.output) == (4, 0, tmp_path / "x.mov")


@pytest.mark.parametrize("name", ["x.webm", "x.mp4"])
def test_from_python_a_background_is_enough(tmp_path, one_layer_dir, session, write_photo, name):
    source, image = write_clip(tmp_path / "a.mp4"), write_photo(tmp_path / "beach.png")
    for background in ((1, 2, 3), picture(20), image, str(image)):
        keras_matting.matte_video(
            source, tmp_path / name, one_layer_dir, "onnx-cpu", background=background, smooth="off", overwrite=True
        )
        is_path = isinstance(background, (str, Path))
        options = OutputOptions("on-image", read_photo(background) if is_path else background)
        assert mean_error(Read(tmp_path / name).images[0], session.matte(photos_of(source)[0], options)) < 8


def test_a_frame_of_another_size_is_scaled_to_the_first(tmp_path):
    source = write_clip(tmp_path / "a.mp4")
    with Clip(source) as clip:
        clip._stored = (32, 24)  # as if the first had been of this size
        assert {frame.photo.rgb.shape for frame in clip.frames()} == {(24, 32, 3)}


def test_an_output_that_is_there_is_replaced_when_asked(cut_out, tmp_path):
    source = write_clip(tmp_path / "a.mp4")
    for name in ("x.webm", "frames"):
        for overwrite in (False, True):
            cut_out(source, tmp_path / name, overwrite=overwrite)
    assert len(Read(tmp_path / "x.webm").images) == 4
    assert len(list((tmp_path / "frames").iterdir())) == 5
