"""The networks of Boopathy et al. 2020: pre-activation convolutions, global average pooling, a bias-free head."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from pellucid.models.classifier import Classifier, building
from pellucid.spec import Count, read_sequence, register


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does: out = ceil(n / stride), the odd pixel on the right and at the bottom."""
    pads = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


class SmallNetwork(Classifier):
    """See SmallCNN."""

    kernels, strides = (4, 4, 7), (2, 2, 1)

    def __init__(self, channels: int, classes: int, filters: tuple[int, int, int]) -> None:
        super().__init__(channels=channels)
        widths = (channels, *filters)
        convolutions = [
            nn.Conv2d(widths[i], widths[i + 1], k, stride=s) for i, (k, s) in enumerate(zip(self.kernels, self.strides))
        ]
        self.convolutions = nn.ModuleList(convolutions)
        self.head = nn.Linear(filters[-1], classes, bias=False)
        with torch.no_grad():
            for conv in convolutions:
                nn.init.normal_(conv.weight, 0, conv.weight[0].numel() ** -0.5)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
            self.head.weight.normal_(0, filters[-1] ** -0.5)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map, not passed through ReLU: (N, 100, ceil(H/4), ceil(W/4))."""
        for number, (conv, k, s) in enumerate(zip(self.convolutions, self.kernels, self.strides)):
            x = conv(pad_same(x if number == 0 else functional.relu(x), k, s))
        return x


@register("model", "small_cnn")
@dataclass(frozen=True, kw_only=True)
class SmallCNN:
    """The Small network of Boopathy et al.: three convolutions (16, 32, 100), average pooling, a linear head.

    conv 4x4/2 - ReLU - conv 4x4/2 - ReLU - conv 7x7 - mean over positions - bias-free linear head; SAME padding.

    Images (N, C, H, W) in [0, 1]. The head is declared: CAM works, and logit_c = mean of the CAM of c.
    Source: Boopathy et al. 2020, section 5 (widths); kernels, strides and initial weights
    N(0, 1/fan-in), head N(0, 1/100), from the authors' code. Deviations: none known.
    """

    filters: Annotated[tuple[Count, Count, Count], BeforeValidator(read_sequence)] = (16, 32, 100)

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        with building(self):
            return SmallNetwork(channels, classes, self.filters)
