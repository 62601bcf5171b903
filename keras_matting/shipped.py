"""The models whose weights come with the package: their names, and where this installation has them.

In a checkout they are `saved_models/NAME/`; a wheel carries the same files as the package `keras_matting_models`.
"""

from importlib.util import find_spec
from pathlib import Path

from keras_matting.model_folder import KERAS_FILE, PRESET_FILE

# setup.cfg, .gitignore and .dockerignore name their files, too; a test compares
SHIPPED = ("modnet_clothing", "u2netp_clothing")
SHIPPED_FILES = (KERAS_FILE, PRESET_FILE, "MODEL_CARD.md")
DEFAULT_MODEL = SHIPPED[0]
WHOLE_SUBJECT_MODEL = "u2netp"  # official weights: fetched when they are asked for, never shipped
# What a model cuts out, for people who do not know its name
PLAIN_NAMES = {
    "modnet_clothing": "Clothing",
    "u2netp_clothing": "Clothing, small model",
    WHOLE_SUBJECT_MODEL: "Whole subject",
}
_PACKAGE = "keras_matting_models"


def shipped_dir(name: str) -> Path | None:
    """Return the folder with the shipped files of a model, perhaps read-only; None where this installation has none."""
    if name not in SHIPPED:
        return None
    spec = find_spec(_PACKAGE)
    installed = list(spec.submodule_search_locations or ()) if spec else []
    for parent in (*map(Path, installed), Path(__file__).parents[1] / "saved_models"):
        if (parent / name / PRESET_FILE).is_file():
            return parent / name
    return None
