"""Print how far the Keras models are from the official PyTorch code and from the authors' own maps, as Markdown.

usage: python benchmarks/parity.py [FOLDER]

FOLDER holds `image/`, `u2net/` and `u2netp/`: the test images of the U-2-Net repository and the maps that its
authors saved for them. Without it only the first table is printed. The official weights are looked up in saved_models/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cv2
import goldens
import numpy as np

from keras_matting.matting import OutputOptions, Session, read_photo
from keras_matting.models import build_model
from keras_matting.photos.folders import list_folder
from keras_matting.weights.pytorch import load_state_dict


def main():
    print("| model | trainable parameters | outputs compared | largest difference from PyTorch |\n|---|---|---|---|")
    for name in goldens.MODELS:
        model = build_model(name)
        load_state_dict(model, goldens.formula_state_dict(name))
        parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        errors = []
        for shape, expected in goldens.eval_cases(name).items():
            outputs = model(goldens.image(goldens.SEED, *shape), training=False)
            errors += [np.abs(np.asarray(outputs[key]) - values).max() for key, values in expected.items()]
        print(f"| {name} | {parameters:,} | {len(errors)} | {max(errors):.1e} |")
    if len(sys.argv) > 1:
        print_differences_from_authors(Path(sys.argv[1]))


def print_differences_from_authors(folder):
    print("\n| model | engine | mean difference from the authors' maps, of 255 | worst photo |\n|---|---|---|---|")
    for name in ("u2netp", "u2net"):
        for engine in ("savedmodel", "onnx-cpu", "openvino-f32"):
            session = Session(Path("saved_models") / name, engine)
            differences = []
            for path in list_folder(folder / "image").photos:
                mask = session.matte(read_photo(path), OutputOptions("mask"))
                truth = cv2.imread(str(folder / name / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
                differences.append(np.abs(mask.astype(float) - truth).mean())
            print(f"| {name} | {engine} | {np.mean(differences):.2f} | {max(differences):.2f} |")


if __name__ == "__main__":
    main()
