"""Tiny ONNX networks as other people export them, and what each gives, computed without this package."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(0, 0.4, (4, 3, 3, 3)).astype("float32")  # of up to four channels


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def write(
    path,
    *,
    layout="NCHW",
    sides=(SIDE, SIDE),
    batch=1,
    channels=1,
    end="Sigmoid",
    dtype=TensorProto.FLOAT,
    opset=17,
    tail=(),
    shape=None,
    names=("input.1", "1959"),
    extra=(),
    inputs=(),
    rotate=0,
    as_inputs=False,
    **saving,
):
    """Write a network of one 3x3 convolution, and return `path`.

    `end`: the operator after it, None for none. `tail`: (operator, constant arrays, attributes) of further nodes.
    `shape`: that of the output as it is declared. `extra`: further outputs, of the convolution's values. `inputs`:
    further inputs. `rotate`: by how much nodes are out of order. `as_inputs`: constants are listed as inputs, too.
    """
    half = dtype == TensorProto.FLOAT16
    weights = WEIGHTS[:channels].astype("float16" if half else "float32")
    constants, nodes, last = [numpy_helper.from_array(weights, "weight")], [], names[0]

    def add(kind, *arrays, **attributes):
        nonlocal last
        given = [f"{kind}_{len(constants)}_{index}" for index in range(len(arrays))]
        constants.extend(numpy_helper.from_array(array, name) for array, name in zip(arrays, given, strict=True))
        nodes.append(helper.make_node(kind, [last, *given], [f"{kind}_{len(nodes)}"], **attributes))
        last = nodes[-1].output[0]

    if dtype == TensorProto.UINT8:
        add("Cast", to=TensorProto.FLOAT)
        add("Div", np.array(255, np.float32))
    if layout == "NHWC":
        add("Transpose", perm=[0, 3, 1, 2])
    nodes.append(helper.make_node("Conv", [last, "weight"], ["convolved"], pads=[1, 1, 1, 1]))
    last = "convolved"
    if end:
        add(end, **({"axis": 1} if end == "Softmax" else {}))
    for kind, arrays, attributes in tail:
        add(kind, *arrays, **attributes)
    nodes.append(helper.make_node("Identity", [last], [names[1]]))
    nodes += [helper.make_node("Identity", ["convolved"], [name]) for name in extra]
    nodes = nodes[rotate:] + nodes[:rotate]

    photo = (batch, 3, *sides) if layout == "NCHW" else (batch, *sides, 3)
    given = [helper.make_tensor_value_info(names[0], dtype, photo), *inputs]
    if as_inputs:
        given.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, weights.shape))
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(names[1], kind, shape)]
    outputs += [helper.make_tensor_value_info(name, kind, None) for name in extra]
    graph = helper.make_graph(nodes, "network", given, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 3 if as_inputs else 8
    onnx.save(model, path, **saving)
    return path


def convolved(image, channels=1):
    """Return the convolution of normalised images (N, H, W, 3), float (N, H, W, channels)."""
    height, width = image.shape[1:3]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((*image.shape[:3], channels))
    for row in range(3):
        for column in range(3):
            seen = padded[:, row : row + height, column : column + width]
            result += seen @ WEIGHTS[:channels, :, row, column].T
    return result
