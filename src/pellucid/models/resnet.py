"""ResNet-18 of He et al. 2016, for small and for large images, with weights from elsewhere where wanted."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.models.activation import Activation, activation_layer
from pellucid.models.classifier import Classifier, PerChannel, building, he_initialise
from pellucid.models.pretrained import load_torchvision
from pellucid.spec import NOT_HASHED, Count, read_sequence, register, title
from pellucid.weights import content_digest, described_file

Blocks = Annotated[tuple[Count, ...], BeforeValidator(read_sequence)]


class BasicBlock(nn.Module):
    """Two convolutions with batch norm, added to their input, then activated."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.inner, self.outer = activation_layer(activation), activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""
        h = self.bn2(self.conv2(self.inner(self.bn1(self.conv1(x)))))
        out: Tensor = self.outer(h + self.downsample(x))
        return out


class ResNetwork(Classifier):
    """See ResNet18. Layers have torchvision's names, but for its fc, which is the head."""

    def __init__(self, channels: int, classes: int, spec: "ResNet18") -> None:
        super().__init__(spec.mean, spec.std, channels)
        width, large = spec.width, spec.stem == "imagenet"
        self.conv1 = nn.Conv2d(
            channels, width, 7 if large else 3, stride=2 if large else 1, padding=3 if large else 1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.activation = activation_layer(spec.activation)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.groups = []
        for number, length in enumerate(spec.blocks):
            outputs = width << number
            blocks = [
                BasicBlock(
                    outputs if block or not number else outputs // 2,
                    outputs,
                    2 if number and not block else 1,
                    spec.activation,
                )
                for block in range(length)
            ]
            self.groups.append(f"layer{number + 1}")
            self.add_module(self.groups[-1], nn.Sequential(*blocks))
        self.head = nn.Linear(outputs, classes)
        he_initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the output of the last group."""
        x = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        for name in self.groups:
            x = self.get_submodule(name)(x)
        return x


@register("model", "resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18: a stem, four groups of two blocks of two 3x3 convolutions, average pooling, a linear head.

    block: relu(shortcut(x) + BN(conv(ReLU(BN(conv(x)))))), the shortcut a 1x1 convolution with BN where shapes differ;
    groups of width, 2 width, 4 width ... channels, each after the first halving the map. stem="cifar": conv 3x3, BN,
    ReLU; "imagenet": conv 7x7/2, BN, ReLU, max-pool 3x3/2. blocks are the lengths of the groups: blocks=(1, 1, 1) with
    width=16 is the ResNet-8 of width 16.

    Images (N, C, H, W) in [0, 1]; the network itself takes (x - mean) / std, per channel. The head is declared.
    weights name a file of somebody's weights (see `load_torchvision`): a path, or hf://OWNER/NAME/FILE; with
    those of torchvision take stem=imagenet and mean=0.485,0.456,0.406 std=0.229,0.224,0.225. The description holds the
    file's sha256, which is computed where it is not given, and not where the file lies. A trained network that
    was saved is read without it. Raises CheckpointError for a file that is missing, damaged, another than described, or
    of another network.
    Source: He et al. 2016, Table 1 and section 4.2; the stem for small images is the usual one, as in Zhang &
    Zhu 2019, who do not describe theirs. Deviations: none known.
    """

    stem: Literal["cifar", "imagenet"] = "cifar"
    width: Count = 64
    blocks: Blocks = (2, 2, 2, 2)
    activation: Activation = "relu"
    mean: PerChannel = (0.0,)
    std: PerChannel = (1.0,)
    weights: str = field(default="", metadata=dict(NOT_HASHED))
    sha256: str = ""

    def check(self) -> None:
        """Look up which weights they are."""
        if not self.blocks:
            raise SpecError(f"{title(type(self))}.blocks: at least one group is needed")
        if self.weights and not self.sha256:
            object.__setattr__(self, "sha256", content_digest(self.weights))

    def blank(self) -> "ResNet18":
        """Return the description of the network alone, with random weights."""
        return replace(self, weights="", sha256="")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network, or one with the weights that are named."""
        with building(self):
            network = ResNetwork(channels, classes, self)
        if self.sha256:
            load_torchvision(network, described_file(self.weights, self.sha256))
        return network
