"""The networks of Boopathy et al. 2020: pre-activation convolutions, global average pooling, a bias-free head."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import SpecError
from pellucid.models.activation import Activation, activation_layer
from pellucid.models.classifier import Classifier, building
from pellucid.spec import Count, read_sequence, register, title


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does: out = ceil(n / stride), the odd pixel on the right and at the bottom."""
    pads = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def pool_same(x: Tensor) -> Tensor:
    """Return the maxima of 2x2 squares, ceil(n / 2) a side: TensorFlow's SAME max-pooling with stride 2."""
    return functional.max_pool2d(x, 2, ceil_mode=True)


def initialise(network: nn.Module) -> None:
    """Draw weights as the authors do: N(0, 1 / fan-in), biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SmallNetwork(Classifier):
    """See SmallCNN."""

    kernels, strides = (4, 4, 7), (2, 2, 1)

    def __init__(self, channels: int, classes: int, spec: "SmallCNN") -> None:
        super().__init__(channels=channels)
        widths = (channels, *spec.filters)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], k, stride=s) for i, (k, s) in enumerate(zip(self.kernels, self.strides))
        )
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.activation = activation_layer(spec.activation)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map, not activated: (N, 100, ceil(H/4), ceil(W/4))."""
        for number, (conv, k, s) in enumerate(zip(self.convolutions, self.kernels, self.strides)):
            x = conv(pad_same(x if number == 0 else self.activation(x), k, s))
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
    activation: Activation = "relu"

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        with building(self):
            return SmallNetwork(channels, classes, self)


class PoolNetwork(Classifier):
    """See PoolCNN."""

    def __init__(self, channels: int, classes: int, spec: "PoolCNN") -> None:
        super().__init__(channels=channels)
        first, second = spec.filters
        self.first = nn.Conv2d(channels, first, 5, padding=2)
        self.second = nn.Conv2d(first, second, 5, padding=2)
        self.head = nn.Linear(second, classes, bias=False)
        self.activation = activation_layer(spec.activation)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map, not activated: (N, 64, ceil(H/4), ceil(W/4))."""
        return pool_same(self.second(self.activation(pool_same(self.first(x)))))


@register("model", "pool_cnn")
@dataclass(frozen=True, kw_only=True)
class PoolCNN:
    """The Pool network of Boopathy et al.: two convolutions (32, 64), each max-pooled, average pooling, a linear head.

    conv 5x5 - max-pool 2 - ReLU - conv 5x5 - max-pool 2 - mean over positions - bias-free linear head; SAME padding.

    Images (N, C, H, W) in [0, 1]. The last map keeps its negative values. The head is declared: CAM works, and
    logit_c = mean of the CAM of c. Source: Boopathy et al. 2020, section 5 (widths); kernels, the order of pooling and
    ReLU, and initial weights N(0, 1/fan-in), head N(0, 1/64), from the authors' code. Deviations: none known.
    """

    filters: Annotated[tuple[Count, Count], BeforeValidator(read_sequence)] = (32, 64)
    activation: Activation = "relu"

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        with building(self):
            return PoolNetwork(channels, classes, self)


def halved(x: Tensor) -> Tensor:
    """Return the means of 2x2 squares; at an odd edge, of what is left of them."""
    return functional.avg_pool2d(x, 2, ceil_mode=True)


def with_zero_channels(x: Tensor, channels: int) -> Tensor:
    """Add channels of zeros before and after those of x, half of them each, an odd one after."""
    more = channels - x.shape[1]
    return functional.pad(x, (0, 0, 0, 0, more // 2, more - more // 2))


class WResBlock(nn.Module):
    """Two convolutions of activated maps, added to their un-activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module) -> None:
        super().__init__()
        self.stride, self.outputs = stride, outputs
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride)
        self.second = nn.Conv2d(outputs, outputs, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return shortcut(x) + conv(relu(conv(relu(x))))."""
        h = self.first(pad_same(self.activation(x), 3, self.stride))
        y: Tensor = self.second(pad_same(self.activation(h), 3, 1))
        return y + with_zero_channels(halved(x) if self.stride == 2 else x, self.outputs)


class WResNetwork(Classifier):
    """See BoopathyWResNet."""

    def __init__(self, channels: int, classes: int, spec: "BoopathyWResNet") -> None:
        super().__init__(channels=channels)
        activation = activation_layer(spec.activation)
        self.first = nn.Conv2d(channels, spec.filters[0], 3)
        widths = (spec.filters[0], *spec.filters)
        self.groups = nn.Sequential(
            *(
                WResBlock(
                    widths[group] if block == 0 else widths[group + 1],
                    widths[group + 1],
                    2 if group and block == 0 else 1,
                    activation,
                )
                for group in range(3)
                for block in range(spec.blocks)
            )
        )
        self.head = nn.Linear(widths[-1], classes, bias=False)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the last map, not activated: (N, 64, ceil(H/4), ceil(W/4))."""
        out: Tensor = self.groups(self.first(pad_same(x, 3, 1)))
        return out


@register("model", "boopathy_wresnet")
@dataclass(frozen=True, kw_only=True)
class BoopathyWResNet:
    """The "Wide Resnet" of Boopathy et al.: 31 convolutions 3x3 in three groups (16, 32, 64), pooling, a linear head.

    conv - 3 x 5 blocks: h = conv(relu(x), stride), x <- conv(relu(h)) + shortcut(x) - mean over positions - bias-free
    linear head. The first block of the second and third group has stride 2; there the shortcut takes 2x2 means and adds
    zero channels on both sides. SAME padding as TensorFlow has it: a stride of 2 pads right and bottom only. No batch
    norm.

    Images (N, C, H, W) in [0, 1], of any size; the last map keeps its negative values. filters are the widths of the
    groups, which must not shrink (SpecError), blocks their lengths. 0.46 M parameters: it is not wide.
    The head is declared: CAM works, and logit_c = mean of the CAM of c.
    Source: Boopathy et al. 2020, section 5 (named only); layers and initial weights N(0, 1/fan-in), head N(0, 1/64),
    from the authors' code. Deviations: sides that are no multiples of 4 work too, by means over partial squares.
    """

    filters: Annotated[tuple[Count, Count, Count], BeforeValidator(read_sequence)] = (16, 32, 64)
    blocks: Count = 5
    activation: Activation = "relu"

    def check(self) -> None:
        """Refuse groups that get narrower: the shortcut can only add channels."""
        if list(self.filters) != sorted(self.filters):
            raise SpecError(f"{title(type(self))}.filters: a group cannot be narrower than the one before")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        with building(self):
            return WResNetwork(channels, classes, self)
