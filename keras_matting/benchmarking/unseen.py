"""Engines are judged on photos that they were not calibrated on."""

from collections.abc import Iterable, Mapping, Sequence

from keras_matting.arrays import Float32
from keras_matting.engines.artefacts import read_manifest
from keras_matting.engines.base import photo_sha256
from keras_matting.errors import UsageError
from keras_matting.files import StrPath
from keras_matting.model_folder import MANIFEST, engine_dir


def require_unseen(model_dir: StrPath, engines: Iterable[str], inputs: Mapping[str, Float32]) -> None:
    """Raise `UsageError` where one of `engines` was calibrated on one of `inputs`, {name: prepared photo}.

    What was calibrated by a version that did not note the photos is refused too: nobody knows.
    """
    digests = {name: photo_sha256(image) for name, image in inputs.items()}
    for engine in engines:
        manifest = read_manifest(engine_dir(model_dir, engine) / MANIFEST)
        again = f"keras-matting optimize {model_dir} --engines {engine}"
        if "calibration_sha256" not in manifest:
            continue
        if "calibration_photos" not in manifest:
            raise UsageError(
                f"Expected to know the photos that {engine} was calibrated on; it was built before they were noted. "
                f"Build it again: {again}."
            )
        if seen := [name for name, digest in digests.items() if digest in manifest["calibration_photos"]]:
            raise UsageError(
                f"Expected photos that no engine was calibrated on; received {_some(seen)}, on which {engine} was. "
                f"Pass others (--photos FOLDER), or calibrate it on others ({again} --calibration FOLDER)."
            )


def _some(names: Sequence[object], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(map(str, names[:shown]))}{more}"
