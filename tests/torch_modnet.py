"""MODNet in PyTorch, written anew for the tests: the same parameter names and graph as the official module.

It stands in for the official code where a PyTorch file is needed: to save checkpoints and to export ONNX as the
official repository does. `test_torch_modnet_reproduces_the_official_outputs` holds it to the goldens.
"""

import torch
from torch import nn
from torch.nn.functional import interpolate

# expansion, channels, repeats, stride
BACKBONE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, relu=True):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)] + ([nn.ReLU6()] if relu else [])


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        expand = conv_bn(inputs, hidden) if expansion > 1 else []
        filtered = conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.conv = nn.Sequential(*expand, *filtered, *conv_bn(hidden, outputs, relu=False))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        blocks, channels = [nn.Sequential(*conv_bn(3, 32, 3, 2))], 32
        for expansion, outputs, repeats, stride in BACKBONE:
            for repeat in range(repeats):
                blocks.append(Residual(channels, outputs, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*blocks, nn.Sequential(*conv_bn(channels, 1280)))

    def forward(self, x):
        taken = {}
        for index, block in enumerate(self.features):
            x = block(x)
            taken[index] = x
        return taken[1], taken[3], taken[18]


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = MobileNetV2()

    def forward(self, x):
        return self.model(x)


class IBNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.half = channels // 2
        self.bnorm = nn.BatchNorm2d(self.half)
        self.inorm = nn.InstanceNorm2d(channels - self.half)

    def forward(self, x):
        return torch.cat((self.bnorm(x[:, : self.half]), self.inorm(x[:, self.half :])), 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, plain=False):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.layers = nn.Sequential(conv) if plain else nn.Sequential(conv, IBNorm(outputs), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = channels // 4
        self.fc = nn.Sequential(
            nn.Linear(channels, inner, bias=False), nn.ReLU(), nn.Linear(inner, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x):
        n, channels = x.shape[:2]
        weights = self.fc(x.mean((2, 3))).view(n, channels, 1, 1)
        return x * weights.expand_as(x)


def scaled(x, factor):
    return interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class SemanticBranch(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.se_block = SqueezeExcite(1280)
        self.conv_lr16x, self.conv_lr8x = Block(1280, 96, 5), Block(96, 32, 5)
        self.conv_lr = Block(32, 1, 3, stride=2, plain=True)

    def forward(self, image, inference):
        enc2x, enc4x, enc32x = self.backbone(image)
        lr8x = self.conv_lr8x(scaled(self.conv_lr16x(scaled(self.se_block(enc32x), 2)), 2))
        return None if inference else torch.sigmoid(self.conv_lr(lr8x)), lr8x, enc2x, enc4x


class DetailBranch(nn.Module):
    def __init__(self, c=32):
        super().__init__()
        self.tohr_enc2x, self.conv_enc2x = Block(16, c, 1), Block(c + 3, c, 3, stride=2)
        self.tohr_enc4x, self.conv_enc4x = Block(24, c, 1), Block(2 * c, 2 * c, 3)
        self.conv_hr4x = nn.Sequential(Block(3 * c + 3, 2 * c, 3), Block(2 * c, 2 * c, 3), Block(2 * c, c, 3))
        self.conv_hr2x = nn.Sequential(Block(2 * c, 2 * c, 3), Block(2 * c, c, 3), Block(c, c, 3), Block(c, c, 3))
        self.conv_hr = nn.Sequential(Block(c + 3, c, 3), Block(c, 1, 1, plain=True))

    def forward(self, image, enc2x, enc4x, lr8x, inference):
        enc2x = self.tohr_enc2x(enc2x)
        hr4x = self.conv_enc2x(torch.cat((scaled(image, 1 / 2), enc2x), 1))
        hr4x = self.conv_enc4x(torch.cat((hr4x, self.tohr_enc4x(enc4x)), 1))
        hr4x = self.conv_hr4x(torch.cat((hr4x, scaled(lr8x, 2), scaled(image, 1 / 4)), 1))
        hr2x = self.conv_hr2x(torch.cat((scaled(hr4x, 2), enc2x), 1))
        if inference:
            return None, hr2x
        return torch.sigmoid(self.conv_hr(torch.cat((scaled(hr2x, 2), image), 1))), hr2x


class FusionBranch(nn.Module):
    def __init__(self, c=32):
        super().__init__()
        self.conv_lr4x, self.conv_f2x = Block(32, c, 5), Block(2 * c, c, 3)
        self.conv_f = nn.Sequential(Block(c + 3, c // 2, 3), Block(c // 2, 1, 1, plain=True))

    def forward(self, image, lr8x, hr2x):
        lr2x = scaled(self.conv_lr4x(scaled(lr8x, 2)), 2)
        f2x = self.conv_f2x(torch.cat((lr2x, hr2x), 1))
        return torch.sigmoid(self.conv_f(torch.cat((scaled(f2x, 2), image), 1)))


class MODNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.lr_branch = SemanticBranch(self.backbone)
        self.hr_branch, self.f_branch = DetailBranch(), FusionBranch()

    def forward(self, image, inference=False):
        semantic, lr8x, enc2x, enc4x = self.lr_branch(image, inference)
        detail, hr2x = self.hr_branch(image, enc2x, enc4x, lr8x, inference)
        return semantic, detail, self.f_branch(image, lr8x, hr2x)


class Inference(nn.Module):
    """What the official repository exports: the matte alone, without the two training heads in the graph."""

    def __init__(self, modnet):
        super().__init__()
        self.modnet = modnet

    def forward(self, image):
        return self.modnet(image, inference=True)[2]


def from_state_dict(arrays):
    """Return MODNet in evaluation mode with the given {name: array}."""
    model = MODNet()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval()
