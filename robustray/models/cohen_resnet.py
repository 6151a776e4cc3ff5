"""Residual networks of 6 n + 2 layers, the bases of randomised smoothing on CIFAR-10.

He et al., "Deep residual learning for image recognition" (2016), section 4.2, with the names and
the standardisation of Cohen et al., "Certified adversarial robustness via randomized smoothing"
(2019).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from robustray.models.errors import ModelError
from robustray.models.layers import Standardize

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class CohenBlock(nn.Module):
    """conv - norm - ReLU - conv - norm, plus a skip, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        skip = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        h = F.relu(self.bn1(self.conv1(x_BCHW)))
        return F.relu(self.bn2(self.conv2(h)) + skip)


class CohenResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels; features after the first and the second.

    Parameters
    ----------
    depth : int
        6 n + 2.
    num_classes, in_channels : int
        Logits, and channels of the images; three are standardised.

    Raises
    ------
    ModelError
        For an impossible depth (a ``ValueError``).
    """

    feature_channels = (16, 32)

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ModelError(f"depth is 6 n + 2 with n at least 1, not {depth}")
        self.pre_process = Standardize(_MEAN, _STD) if in_channels == 3 else None
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, channels in enumerate((16, 32, 64)):
            blocks = []
            for number in range((depth - 2) // 6):
                stride = 2 if stage and number == 0 else 1
                blocks.append(CohenBlock(inputs, channels, stride))
                inputs = channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images in [0, 1]."""
        return self.forward_features(x_BCHW)[0]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and what the first two stages put out."""
        if self.pre_process is not None:
            x_BCHW = self.pre_process(x_BCHW)
        x = F.relu(self.bn1(self.conv1(x_BCHW)))
        features = []
        for stage in range(1, 4):
            x = self.get_submodule(f"layer{stage}")(x)
            features.append(x)
        return self.fc(x.mean((2, 3))), (features[0], features[1])
