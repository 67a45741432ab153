"""The networks of Jakubovitz & Giryes 2018."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.models.activation import Activation, activation_layer
from pellucid.models.classifier import Classifier, building
from pellucid.spec import Count, Share, read_sequence, register, title


class Flattened(Classifier):
    """Convolutions and a fully connected part."""

    def __init__(self, channels: int, convolutions: nn.Sequential, dense: nn.Sequential) -> None:
        super().__init__(channels=channels)
        self.convolutions, self.dense = convolutions, dense

    def features(self, x: Tensor) -> Tensor:
        """Return the map after the last pooling."""
        out: Tensor = self.convolutions(x)
        return out

    def classify(self, f: Tensor) -> Tensor:
        """Return the logits of the fully connected part."""
        out: Tensor = self.dense(f)
        return out


@register("model", "tutorial_cnn")
@dataclass(frozen=True, kw_only=True)
class TutorialCNN:
    """TensorFlow's tutorial network, which Jakubovitz & Giryes train on MNIST: two convolutions, two dense layers.

    conv 5x5x32, ReLU, max-pool 2 - conv 5x5x64, ReLU, max-pool 2 - FC 1024, ReLU - dropout - FC K; SAME padding.
    Weights N(0, 0.1) cut at two standard deviations, biases 0.1.

    Images (N, C, H, W) in [0, 1]. No linear head on pooled features, so no CAM. dropout is the share that is dropped.
    Source: Jakubovitz & Giryes 2018, Experiments (MNIST), after TensorFlow's tutorial; dropout between the dense layers
    only and the initial weights from the authors' code. Deviations: none known; the decay of the weights of both
    convolutions and the first dense layer, which the code adds and the paper does not print, is not offered.
    """

    filters: Annotated[tuple[Count, Count], BeforeValidator(read_sequence)] = (32, 64)
    hidden: Count = 1024
    dropout: Share = 0.5
    activation: Activation = "relu"

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network."""
        first, second = self.filters
        height, width = (-(-side // 4) for side in size)
        with building(self):
            network = Flattened(
                channels,
                nn.Sequential(
                    nn.Conv2d(channels, first, 5, padding=2),
                    activation_layer(self.activation),
                    nn.MaxPool2d(2, ceil_mode=True),
                    nn.Conv2d(first, second, 5, padding=2),
                    activation_layer(self.activation),
                    nn.MaxPool2d(2, ceil_mode=True),
                ),
                nn.Sequential(
                    nn.Flatten(),
                    nn.Linear(second * height * width, self.hidden),
                    activation_layer(self.activation),
                    nn.Dropout(self.dropout),
                    nn.Linear(self.hidden, classes),
                ),
            )
            for layer in network.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
                    nn.init.constant_(layer.bias, 0.1)  # type: ignore[arg-type]
        return network


@register("model", "jakubovitz_cnn")
@dataclass(frozen=True, kw_only=True)
class JakubovitzCNN:
    """The network of Jakubovitz & Giryes for CIFAR-10: four sets of two convolutions, two dense layers.

    4 x [conv, ReLU, conv, ReLU, max-pool 2, dropout] - FC, ReLU - FC K.

    Images (N, C, H, W) in [0, 1], H and W at least 16 (SpecError). No linear head on pooled features, so no CAM.
    dropout is the share that is dropped, after every set.
    Source: Jakubovitz & Giryes 2018, Experiments (CIFAR-10). Deviations: the paper prints neither kernels nor widths
    nor initial weights, so those here are ours: 3x3 kernels with SAME padding, `width` channels in the first set and
    twice as many in each set after it (64, 128, 256, 512, as in VGG, the usual net of this form), `hidden` units, He's
    initial weights. No batch norm, as none is named: with it the Jacobian of one image in training mode would depend
    on the others of its batch.
    """

    width: Count = 64
    hidden: Count = 512
    dropout: Share = 0.25
    activation: Activation = "relu"

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network; raise SpecError for images smaller than 16x16."""
        if min(size) < 16:
            raise SpecError(f"{title(type(self))} needs images of at least 16x16 pixels, not {size[0]}x{size[1]}")
        layers: list[nn.Module] = []
        inputs = channels
        with building(self):
            for outputs in (self.width << number for number in range(4)):
                for entering in (inputs, outputs):
                    layers += [nn.Conv2d(entering, outputs, 3, padding=1), activation_layer(self.activation)]
                layers += [nn.MaxPool2d(2), nn.Dropout(self.dropout)]
                inputs = outputs
            dense = nn.Sequential(
                nn.Flatten(),
                nn.Linear(inputs * (size[0] // 16) * (size[1] // 16), self.hidden),
                activation_layer(self.activation),
                nn.Linear(self.hidden, classes),
            )
            network = Flattened(channels, nn.Sequential(*layers), dense)
            for layer in network.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return network
