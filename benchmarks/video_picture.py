"""Draw the picture of docs/video.md: frames of a made clip above their cut-outs, without and with smoothing.

usage: python benchmarks/video_picture.py [--model MODEL_DIR] [--engine NAME] [--out JPEG]

The clip is that of made_clip.py: one of the frames is out of focus, as happens.
"""

import argparse
from pathlib import Path

import numpy as np
from made_clip import made_clip, raw_mattes

from keras_matting.files import write_atomically
from keras_matting.matting import OutputOptions, open_session
from keras_matting.photos.files import Photo, encode
from keras_matting.shipped import DEFAULT_MODEL
from keras_matting.video.reading import Frame
from keras_matting.video.smoothing import one_frame_delay

SIZE, STEP_PX = (220, 220), 4
COLOUR = (226, 232, 222)
GAP_PX = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model folder or name (default: {DEFAULT_MODEL})")
    parser.add_argument("--engine", default="onnx-cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/images/video.jpg"))
    arguments = parser.parse_args()
    with open_session(arguments.model, arguments.engine) as session:
        frames = made_clip(session, "skirt", 5, SIZE, STEP_PX).recorded("out of focus")
        mattes = raw_mattes(session, frames)
        pairs = [
            (Frame(Photo(frame), index, 1), matte)
            for index, (frame, matte) in enumerate(zip(frames, mattes, strict=True))
        ]
        options = OutputOptions("on-color", COLOUR)
        rows = [frames] + [
            [session.render(frame.photo, matte, options) for frame, matte in sequence]
            for sequence in (pairs, list(one_frame_delay(pairs)))
        ]
    picture = joined([joined(row, axis=1) for row in rows], axis=0)
    write_atomically(arguments.out, encode(picture, ".jpg"))
    print(f"{arguments.out}: {picture.shape[1]}x{picture.shape[0]}, {arguments.out.stat().st_size / 1000:.0f} kB")


def joined(images, axis):
    """Return images side by side (axis 1) or one below the other, with white gaps."""
    shape = list(images[0].shape)
    shape[axis] = GAP_PX
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([piece for image in images for piece in (image, gap)][:-1], axis=axis)


if __name__ == "__main__":
    main()
