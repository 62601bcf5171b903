"""The verbs that make model folders: `fetch`, `import`, `from-keras`, `from-onnx`, `export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_matting.architectures import ARCHITECTURES
from keras_matting.cli.shared import positive
from keras_matting.cli.status import OK, SOME_FAILED, say
from keras_matting.errors import UsageError
from keras_matting.files import printable
from keras_matting.machine import missing_package
from keras_matting.shipped import SHIPPED

if TYPE_CHECKING:
    from keras_matting.photos.files import Photo

CHECKED_PHOTOS = 8


def add_fetch_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `fetch`."""
    parser.add_argument(
        "name",
        help="u2netp, u2net, u2net_human_seg or modnet, which are official; or, copied without any network, "
        f"{', '.join(SHIPPED)}",
    )
    parser.add_argument("--out", type=Path, help="model folder to write (default: saved_models/NAME)")
    parser.add_argument("--file", type=Path, help="the official file, if you have it already")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def fetch(arguments: argparse.Namespace) -> int:
    """Bring official or shipped weights into a model folder."""
    from keras_matting.weights.fetch import fetch

    out = arguments.out or Path("saved_models") / arguments.name
    fetch(arguments.name, out, arguments.file, arguments.force)
    say(f"{arguments.name} -> {out}")
    return OK


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `import`."""
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True, help=f"the architecture: {', '.join(ARCHITECTURES)}")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def import_(arguments: argparse.Namespace) -> int:
    """Import any checkpoint into a model folder."""
    from keras_matting.weights.fetch import import_file

    import_file(arguments.file, arguments.model, arguments.out, arguments.force)
    say(f"{arguments.file} -> {arguments.out}")
    return OK


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `export`."""
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--size", type=size, metavar="HxW", help="export at this size, which becomes the preset's")
    parser.add_argument("--batch", type=_batch, default=None, metavar="dynamic|N", help="batch size (default: dynamic)")
    parser.add_argument("--opset", type=int, default=17, help="ONNX opset (default: 17, which TensorRT 8.5 parses)")
    parser.add_argument(
        "--for",
        dest="target",
        choices=("tftrt", "tensorrt"),
        help="tftrt: write saved_model_tftrt/; tensorrt: write model.onnx, which must be there, in float16 and int8",
    )
    parser.add_argument("--calibration", type=Path, help="folder of photos for int8, with --for tensorrt")
    parser.add_argument("--simplify", action="store_true", help="pass the ONNX file through onnxslim")
    parser.add_argument("--photos", type=Path, help="folder of photos to check on (default: three samples)")
    parser.add_argument("--triton", type=Path, metavar="REPOSITORY", help="write the exported graph for Triton, too")
    parser.add_argument("--triton-device", choices=("cpu", "gpu"), help="default: cpu, for an engine gpu")
    parser.add_argument(
        "--triton-engine", metavar="ENGINE", help="serve this built engine (tensorrt-fp16, say) instead"
    )
    parser.add_argument("--force", action="store_true", help="replace the model in the Triton repository")


def export(arguments: argparse.Namespace) -> int:
    """Write a model folder's SavedModel and ONNX file."""
    from keras_matting.model_folder import Preset
    from keras_matting.photos.samples import folder_photos

    if arguments.triton_engine and not arguments.triton:
        raise UsageError("--triton-engine says what to serve; expected --triton REPOSITORY too.")
    preset = Preset.load(arguments.model_dir)  # a wrong path is told before Keras is loaded
    photos = folder_photos(arguments.photos, CHECKED_PHOTOS) if arguments.photos else None
    if arguments.target == "tensorrt":
        return _export_lowered(arguments, photos)
    if preset.has_keras or not arguments.triton:
        _export_keras(arguments, photos)
    if arguments.triton:
        from keras_matting.engines.triton import export_triton

        target = export_triton(
            arguments.model_dir, arguments.triton, arguments.triton_device, arguments.triton_engine, arguments.force
        )
        say(f"Triton: {target}")
    return OK


def _export_keras(arguments: argparse.Namespace, photos: Sequence[Photo] | None) -> None:
    from keras_matting.export import export

    errors = export(
        arguments.model_dir,
        size=arguments.size,
        batch=arguments.batch,
        opset=arguments.opset,
        photos=photos,
        tftrt=arguments.target == "tftrt",
        simplify=arguments.simplify,
    )
    for artefact, error in errors.items():
        say(f"{arguments.model_dir}/{artefact}: differs from Keras by {error:.1e} at most")


def _export_lowered(arguments: argparse.Namespace, photos: Sequence[Photo] | None) -> int:
    from keras_matting.engines import BuildOptions
    from keras_matting.engines.lowered import export_lowered
    from keras_matting.engines.optimize import calibration_inputs
    from keras_matting.model_folder import LOWERED_ONNX, Preset
    from keras_matting.photos.samples import sample_photos

    options = BuildOptions(calibration_inputs(Preset.load(arguments.model_dir), arguments.calibration))
    lowered = export_lowered(arguments.model_dir, options, photos or list(sample_photos().values()))
    for one in lowered:
        errors = f"mean error {one.mae:.4f}, worst photo {one.worst_photo_mae:.4f}"
        outcome = f"not written: {one.refused}" if one.refused else errors
        say(f"{arguments.model_dir}/{LOWERED_ONNX[one.precision]}: {outcome}")
    return SOME_FAILED if any(one.refused for one in lowered) else OK


def add_from_keras_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `from-keras`."""
    parser.add_argument("name", help="a model of keras.applications: ResNet50, EfficientNetB7, ...")
    parser.add_argument("--out", type=Path, help="model folder to write (default: saved_models/NAME)")
    parser.add_argument("--size", type=size, metavar="HxW", help="input size (default: the application's own)")
    parser.add_argument("--weights", default="none", choices=("none", "imagenet"), help="none (default): random")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def from_keras(arguments: argparse.Namespace) -> int:
    """Write a model folder of a Keras application, to export, optimise and benchmark like ours."""
    from keras_matting.foreign import write_application_folder

    out = arguments.out or Path("saved_models") / arguments.name.lower()
    weights = None if arguments.weights == "none" else arguments.weights
    write_application_folder(arguments.name, out, size=arguments.size, weights=weights, force=arguments.force)
    say(f"{arguments.name} -> {out}")
    return OK


def add_from_onnx_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `from-onnx`."""
    parser.add_argument("file", type=Path, help="an ONNX network: a photo in, a matte or mask out")
    parser.add_argument("--name", help="the model's name (default: the file's)")
    parser.add_argument("--out", type=Path, help="model folder to write (default: saved_models/NAME)")
    parser.add_argument("--size", type=size, metavar="HxW", help="input size, of a file that takes any")
    parser.add_argument("--mean", type=_numbers, metavar="R,G,B", help="of values from 0 to 1; one number for all")
    parser.add_argument("--std", type=_numbers, metavar="R,G,B", help="what values less the mean are divided by")
    parser.add_argument(
        "--scale", default="255", choices=("255", "image-max"), help="what 8-bit values are divided by (default: 255)"
    )
    parser.add_argument(
        "--interpolation", default="linear", choices=("linear", "area"), help="how photos are resized (default: linear)"
    )
    parser.add_argument(
        "--output",
        choices=("sigmoid", "softmax", "minmax", "none"),
        help="what makes the output a matte, where the file does not tell; minmax: stretched to [0, 1] by photo",
    )
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="where the channels are, if the file does not tell")
    parser.add_argument("--output-name", metavar="OUTPUT", help="of several outputs, the matte")
    parser.add_argument("--channel", type=int, metavar="N", help="of several channels, the subject (default of two: 1)")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")


def from_onnx(arguments: argparse.Namespace) -> int:
    """Write a model folder of anybody's ONNX file, for engines, benchmark and service."""
    for package in ("onnx", "onnxruntime"):
        if reason := missing_package(package, "cpu"):
            raise UsageError(f"from-onnx cannot run here: {reason}")
    from keras_matting.foreign_onnx import Asked, write_onnx_folder

    name = arguments.name or arguments.file.stem
    if Path(name).name != name:
        raise UsageError(f"Expected a name without folders; received {name!r}. Say where with --out.")
    out = arguments.out or Path("saved_models") / name
    asked = Asked(**{field: getattr(arguments, field) for field in Asked.__dataclass_fields__})
    write_onnx_folder(arguments.file, out, asked, name=name, force=arguments.force)
    say(f"{printable(arguments.file)} -> {printable(out)}: equal to ONNX Runtime on the file itself")
    return OK


def _numbers(text: str) -> list[float]:
    """Parse one number, or three with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"expected one number or R,G,B; received {text!r}")
    return values


def size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, as 512x352; received {text!r}")
    return int(height), int(width)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected dynamic or a positive number; received {text!r}") from None
