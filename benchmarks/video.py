"""Print how many frames/s a clip is matted at, into each format, with the best engine, and by rembg, as Markdown.

usage: python benchmarks/video.py [--clip FILE] [--size HxW] [--frames N] [--model MODEL_DIR] [--engine NAME]
                                  [--rembg MODEL]

Without --clip, a made one (made_clip.py). rembg, where it is installed, gets the same frames, decoded beforehand, one
after the other, and nothing is encoded. Its model has to be in its folder already (U2NET_HOME).
"""

import argparse
import tempfile
import time
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

from made_clip import made_clip

from keras_matting.matting import OutputOptions, open_session
from keras_matting.shipped import DEFAULT_MODEL
from keras_matting.video.reading import Clip
from keras_matting.video.run import plan, run

OUTPUTS = {
    "WebM, VP9 with alpha": ("x.webm", OutputOptions()),
    "MOV, ProRes 4444": ("x.mov", OutputOptions()),
    "MP4, H.264 on white": ("x.mp4", OutputOptions("on-color", (255, 255, 255))),
    "MP4, H.264, the matte": ("mask.mp4", OutputOptions("mask")),
    "PNGs": ("frames", OutputOptions()),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--size", default="720x1280", help="of the made clip, height and width")
    parser.add_argument("--frames", type=int, default=60, help="of the made clip")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rembg", default="u2netp", metavar="MODEL", help="rembg's name of a model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_session(arguments.model, arguments.engine) as session:
        size = tuple(map(int, arguments.size.split("x")))
        source = arguments.clip or write(made_clip(session, "t-shirt", arguments.frames, size).frames, Path(folder))
        with Clip(source) as clip:
            height, width = clip.size
        photos, seconds = decoded(source)
        print(f"{source.name}: {len(photos)} frames of {width}x{height}; {arguments.model} on {session.engine.name}\n")
        print("| what | frames/s |")
        print("|---|---:|")
        show("decoding alone", len(photos), seconds)
        show("inference alone, one at a time", len(photos), inference_s(session, photos))
        for name, (target, options) in OUTPUTS.items():
            with Clip(source) as clip:
                result = run(session, clip, plan(source, Path(folder) / target, options))
            show(name, result.frames, result.seconds)
        show_rembg(photos, arguments.rembg)


def show(name, frames, seconds):
    print(f"| {name} | {frames / seconds:.2f} |", flush=True)


def write(frames, folder):
    """Write frames as H.264 at 30 frames/s, and return the path."""
    import av

    path = folder / "made.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=Fraction(30))
        track.height, track.width = frames.shape[1:3]
        track.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(track.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(track.encode(None))
    return path


def decoded(source):
    """Return (the photos of a clip, the seconds that took)."""
    start = time.perf_counter()
    with Clip(source) as clip:
        photos = [frame.photo for frame in clip.frames()]
    return photos, time.perf_counter() - start


def inference_s(session, photos):
    tensors = [session.prepare(photo) for photo in photos]
    session.predict(tensors[0][None])  # the first warms up
    start = time.perf_counter()
    for tensor in tensors:
        session.predict(tensor[None])
    return time.perf_counter() - start


def show_rembg(photos, model):
    if find_spec("rembg") is None:
        print(f"| rembg, {model} | not installed |")
        return
    from rembg import new_session, remove

    session = new_session(model)
    remove(photos[0].rgb, session=session)
    start = time.perf_counter()
    for photo in photos:
        remove(photo.rgb, session=session)
    show(f"rembg, {model}, arrays to arrays", len(photos), time.perf_counter() - start)


if __name__ == "__main__":
    main()
