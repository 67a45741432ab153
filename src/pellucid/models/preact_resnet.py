"""ResNets with pre-activation, of He et al. 2016b."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.models.activation import Activation, activation_layer
from pellucid.models.classifier import Classifier, PerChannel, building, he_initialise
from pellucid.models.resnet import Blocks
from pellucid.spec import Count, register, title


class PreActBlock(nn.Module):
    """Batch norm and activation before each of two convolutions, added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if stride != 1 or inputs != outputs else None
        )
        self.first, self.second = activation_layer(activation), activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return conv(dropout(relu(bn(conv(h))))) + x with h = relu(bn(x)), or + shortcut(h) where shapes differ."""
        h = self.first(self.bn1(x))
        out: Tensor = self.conv2(self.dropout(self.second(self.bn2(self.conv1(h)))))
        return out + (x if self.shortcut is None else self.shortcut(h))


class PreActNetwork(Classifier):
    """A 3x3 convolution to `stem` channels, groups of pre-activation blocks, batch norm, activation, a pooled head."""

    def __init__(
        self,
        channels: int,
        classes: int,
        stem: int,
        groups: Sequence[tuple[int, int]],
        mean: Sequence[float],
        std: Sequence[float],
        activation: Activation,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(mean, std, channels)
        self.stem = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        blocks, inputs = [], stem
        for number, (width, length) in enumerate(groups):
            for block in range(length):
                stride = 2 if number and not block else 1
                blocks.append(PreActBlock(inputs, width, stride, activation, dropout))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.activation = activation_layer(activation)
        self.head = nn.Linear(inputs, classes)
        he_initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map, activated."""
        out: Tensor = self.activation(self.bn(self.blocks(self.stem(x))))
        return out


@register("model", "preact_resnet18")
@dataclass(frozen=True, kw_only=True)
class PreActResNet18:
    """ResNet-18 with pre-activation, for small images: four groups of two blocks, average pooling, a linear head.

    conv 3x3 - 4 x 2 blocks: x + conv(ReLU(BN(conv(h)))), h = ReLU(BN(x)) - BN, ReLU - mean over positions - linear
    head. Groups of width, 2 width, 4 width ... channels; each after the first halves the map, and its first block has
    a 1x1 convolution of h in place of x. blocks are the lengths of the groups.

    Images (N, C, H, W) in [0, 1]; the network itself takes (x - mean) / std, per channel. The head is declared.
    Source: He et al. 2016b (Identity Mappings), Figure 4 (e) and appendix (batch norm and ReLU after the last block);
    18 layers as in He et al. 2016, Table 1. Deviations: none known; many networks of this name leave out the
    last batch norm and ReLU.
    """

    width: Count = 64
    blocks: Blocks = (2, 2, 2, 2)
    activation: Activation = "relu"
    mean: PerChannel = (0.0,)
    std: PerChannel = (1.0,)

    def check(self) -> None:
        """Refuse a network without blocks."""
        if not self.blocks:
            raise SpecError(f"{title(type(self))}.blocks: at least one group is needed")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        groups = [(self.width << number, length) for number, length in enumerate(self.blocks)]
        with building(self):
            return PreActNetwork(channels, classes, self.width, groups, self.mean, self.std, self.activation)
