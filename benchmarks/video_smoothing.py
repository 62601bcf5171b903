"""Measure on made clips what smoothing does against flicker, and whether it costs accuracy, as Markdown.

usage: python benchmarks/video_smoothing.py [--model MODEL_DIR] [--engine NAME] [--frames N]

Flicker is the mean change of the matte from one frame to the next where the scene does not change; the error is the
mean absolute difference from the true alpha. The clips are those of made_clip.py, as they are and with every fourth
frame recorded badly: compressed too much, out of focus, noisy, overexposed.
"""

import argparse

import numpy as np
from made_clip import FAULTS, SCENES, made_clip, raw_mattes

from keras_matting.matting import open_session
from keras_matting.photos.files import Photo
from keras_matting.shipped import DEFAULT_MODEL
from keras_matting.video.reading import Frame
from keras_matting.video.smoothing import one_frame_delay


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--frames", type=int, default=12)
    arguments = parser.parse_args()
    rows = {}
    with open_session(arguments.model, arguments.engine) as session:
        for scene in SCENES:
            clip = made_clip(session, scene, arguments.frames)
            for fault in (None, *FAULTS):
                rows.setdefault(fault, []).append(measured(session, clip, fault))
        engine = session.engine.name
    print(f"{len(SCENES)} clips of {arguments.frames} frames, {arguments.model} on {engine}\n")
    print("| every fourth frame | flicker, off | ofd | ratio | MAE, off | ofd | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for fault, values in rows.items():
        (flicker, flicker_after), (error, error_after) = np.mean(values, axis=0).T
        print(
            f"| {fault or 'as the others'} | {flicker:.4f} | {flicker_after:.4f} | {flicker_after / flicker:.2f} "
            f"| {error:.4f} | {error_after:.4f} | {error_after / error:.2f} |"
        )


def measured(session, clip, fault):
    """Return ((flicker, MAE) without smoothing, the same with it)."""
    frames = clip.recorded(fault) if fault else clip.frames
    mattes = raw_mattes(session, frames)
    pairs = [
        (Frame(Photo(frame), index, 1), matte) for index, (frame, matte) in enumerate(zip(frames, mattes, strict=True))
    ]
    smooth = [matte for _, matte in one_frame_delay(pairs)]
    return [figures(session, clip, sequence) for sequence in (mattes, smooth)]


def figures(session, clip, mattes):
    mattes = np.stack([session.restore(Photo(frame), raw) for frame, raw in zip(clip.frames, mattes, strict=True)])
    still = (clip.frames[1:] == clip.frames[:-1]).all(-1)
    return np.abs(np.diff(mattes, axis=0))[still].mean(), np.abs(mattes - clip.alphas).mean()


if __name__ == "__main__":
    main()
