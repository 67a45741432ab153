"""Wide residual networks, of Zagoruyko & Komodakis 2016."""

from dataclasses import dataclass

from pellucid.errors import SpecError
from pellucid.models.activation import Activation
from pellucid.models.classifier import Classifier, PerChannel, building
from pellucid.models.preact_resnet import PreActNetwork
from pellucid.spec import Count, Share, register, title


@register("model", "wide_resnet")
@dataclass(frozen=True, kw_only=True)
class WideResNet:
    """WRN-depth-widen: three groups of (depth - 4) / 6 pre-activation blocks, 16, 32 and 64 times widen channels.

    conv 3x3x16 - 3 groups of blocks: x + conv(dropout(ReLU(BN(conv(h))))), h = ReLU(BN(x)) - BN, ReLU - mean over
    positions - linear head. The second and third group halve the map; where shapes differ, a 1x1 convolution of h
    stands for x.

    Images (N, C, H, W) in [0, 1]; the network itself takes (x - mean) / std, per channel. The head is declared.
    dropout is the share that is dropped, inside the blocks. Raises SpecError for a depth that is not 6 n + 4.
    Source: Zagoruyko & Komodakis 2016, Table 1 (blocks B(3,3)). Deviations: none known.
    """

    depth: Count = 28
    widen: Count = 10
    dropout: Share = 0.0
    activation: Activation = "relu"
    mean: PerChannel = (0.0,)
    std: PerChannel = (1.0,)

    def check(self) -> None:
        """Refuse depths that do not divide into three groups."""
        if self.depth < 10 or self.depth % 6 != 4:
            raise SpecError(f"{title(type(self))}.depth must be 6 n + 4 (10, 16, 22, 28 ...), not {self.depth}")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        groups = [(width * self.widen, (self.depth - 4) // 6) for width in (16, 32, 64)]
        with building(self):
            return PreActNetwork(channels, classes, 16, groups, self.mean, self.std, self.activation, self.dropout)
