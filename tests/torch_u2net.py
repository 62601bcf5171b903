"""U2Net and U2NetP in PyTorch, written anew for tests and benchmarks: the official modules' parameter names and graph.

The checkpoint's names say which module is which, so official weights load as they are.
`test_torch_u2net_reproduces_the_official_outputs` holds it to the goldens.
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

# name: (height, inner, outer channels, dilated)
U2NET = {
    "stage1": (7, 32, 64, False),
    "stage2": (6, 32, 128, False),
    "stage3": (5, 64, 256, False),
    "stage4": (4, 128, 512, False),
    "stage5": (4, 256, 512, True),
    "stage6": (4, 256, 512, True),
    "stage5d": (4, 256, 512, True),
    "stage4d": (4, 128, 256, False),
    "stage3d": (5, 64, 128, False),
    "stage2d": (6, 32, 64, False),
    "stage1d": (7, 16, 64, False),
}
U2NETP = {name: (height, 16, 64, dilated) for name, (height, _, _, dilated) in U2NET.items()}
TABLES = {"u2net": U2NET, "u2netp": U2NETP}


class ConvBnRelu(nn.Module):
    def __init__(self, inputs, outputs, dilation):
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return torch.relu(self.bn_s1(self.conv_s1(x)))


class Rsu(nn.Module):
    def __init__(self, inputs, height, inner, outer, dilated):
        super().__init__()
        self.height, self.dilated = height, dilated
        self.rebnconvin = ConvBnRelu(inputs, outer, 1)
        for level in range(1, height + 1):
            dilation = 2 ** (level - 1) if dilated else 1 if level < height else 2
            setattr(self, f"rebnconv{level}", ConvBnRelu(outer if level == 1 else inner, inner, dilation))
        for level in range(1, height):
            dilation = 2 ** (level - 1) if dilated else 1
            setattr(self, f"rebnconv{level}d", ConvBnRelu(2 * inner, outer if level == 1 else inner, dilation))

    def forward(self, x):
        residual = x = self.rebnconvin(x)
        skips = []
        for level in range(1, self.height):
            x = getattr(self, f"rebnconv{level}")(pool(x) if level > 1 and not self.dilated else x)
            skips.append(x)
        x = getattr(self, f"rebnconv{self.height}")(x)
        for level in range(self.height - 1, 0, -1):
            x = torch.cat((like(x, skips[level - 1]), skips[level - 1]), 1)
            x = getattr(self, f"rebnconv{level}d")(x)
        return x + residual


class U2Net(nn.Module):
    def __init__(self, table):
        super().__init__()
        channels, encoded = 3, []
        for name in [f"stage{number}" for number in range(1, 7)]:
            setattr(self, name, Rsu(channels, *table[name]))
            channels = table[name][2]
            encoded.append(channels)
        outputs = [encoded.pop()]
        while encoded:
            name, skip = f"stage{len(encoded)}d", encoded.pop()
            setattr(self, name, Rsu(outputs[0] + skip, *table[name]))
            outputs.insert(0, table[name][2])
        for number, channels in enumerate(outputs, start=1):
            setattr(self, f"side{number}", nn.Conv2d(channels, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        return self.maps(x)[0]

    def maps(self, x):
        """Return the matte and the six sides' maps, which training supervises."""
        encoded = []
        for number in range(1, 7):
            x = getattr(self, f"stage{number}")(pool(x) if number > 1 else x)
            encoded.append(x)
        decoded = [encoded.pop()]
        while encoded:
            name, skip = f"stage{len(encoded)}d", encoded.pop()
            decoded.insert(0, getattr(self, name)(torch.cat((like(decoded[0], skip), skip), 1)))
        sides = [getattr(self, f"side{number}")(x) for number, x in enumerate(decoded, start=1)]
        sides = [like(side, sides[0]) for side in sides]
        return [torch.sigmoid(one) for one in (self.outconv(torch.cat(sides, 1)), *sides)]


def pool(x):
    return max_pool2d(x, 2, 2, ceil_mode=True)


def like(x, reference):
    size = reference.shape[2:]
    return x if x.shape[2:] == size else interpolate(x, size=size, mode="bilinear", align_corners=False)


def from_state_dict(name, arrays):
    """Return "u2net" or "u2netp", its matte alone, in evaluation mode with the given {name: array}."""
    model = U2Net(TABLES[name])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(tensors, strict=True)
    return model.eval()
