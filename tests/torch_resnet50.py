"""ResNet50 in PyTorch as keras.applications has it, written anew for tests and benchmarks; torchvision's is another.

Its parameters are called after Keras's layers. The stride is in a stage's first 1x1 convolution (the paper's, "v1"),
convolutions have biases, and the epsilon of the batch norms is 1.001e-5.
"""

import torch
from torch import nn
from torch.nn.functional import max_pool2d, pad

# stage: (inner channels, blocks, stride)
STAGES = {2: (64, 3, 1), 3: (128, 4, 2), 4: (256, 6, 2), 5: (512, 3, 2)}
EXPANSION = 4
EPSILON = 1.001e-5


class ResNet50(nn.Module):
    """NCHW images to class probabilities."""

    def __init__(self, classes=1000):
        super().__init__()
        self._conv("conv1", 3, 64, 7, stride=2)
        channels = 64
        for name, inner, stride, has_shortcut in blocks():
            if has_shortcut:
                self._conv(f"{name}_0", channels, EXPANSION * inner, 1, stride)
            self._conv(f"{name}_1", channels, inner, 1, stride)
            self._conv(f"{name}_2", inner, inner, 3)
            self._conv(f"{name}_3", inner, EXPANSION * inner, 1)
            channels = EXPANSION * inner
        self.predictions = nn.Linear(channels, classes)

    def forward(self, x):
        # Keras pads with zeros before it pools; what is pooled is not negative.
        x = max_pool2d(pad(torch.relu(self._normed("conv1", x)), (1, 1, 1, 1)), 3, 2)
        for name, _, _, has_shortcut in blocks():
            shortcut = self._normed(f"{name}_0", x) if has_shortcut else x
            x = torch.relu(self._normed(f"{name}_1", x))
            x = torch.relu(self._normed(f"{name}_2", x))
            x = torch.relu(shortcut + self._normed(f"{name}_3", x))
        return torch.softmax(self.predictions(x.mean((2, 3))), 1)

    def _conv(self, name, inputs, outputs, kernel_size, stride=1):
        conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2)
        self.add_module(f"{name}_conv", conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs, eps=EPSILON))

    def _normed(self, name, x):
        return getattr(self, f"{name}_bn")(getattr(self, f"{name}_conv")(x))


def blocks():
    """Return (name, inner channels, stride, whether its shortcut is a convolution) of each block."""
    return [
        (f"conv{stage}_block{block}", inner, stride if block == 1 else 1, block == 1)
        for stage, (inner, count, stride) in STAGES.items()
        for block in range(1, count + 1)
    ]
