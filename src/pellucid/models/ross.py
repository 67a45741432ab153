"""The convolutional network of Ross & Doshi-Velez 2018."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.models.activation import Activation, activation_layer
from pellucid.models.classifier import Classifier, building
from pellucid.models.lcn import LCNMean, LocalContrastNormalisation
from pellucid.spec import Count, Flag, Share, read_sequence, register, title


class RossNetwork(Classifier):
    """See RossCNN."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, spec: "RossCNN") -> None:
        super().__init__(channels=channels)
        first, second = spec.filters
        self.lcn = LocalContrastNormalisation(spec.lcn_mean) if spec.lcn else nn.Identity()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2, bias=False),
            _batch_norm(first, nn.BatchNorm2d),
            activation_layer(spec.activation),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2, bias=False),
            _batch_norm(second, nn.BatchNorm2d),
            activation_layer(spec.activation),
            nn.MaxPool2d(2),
        )
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * (size[0] // 4) * (size[1] // 4), spec.hidden, bias=False),
            _batch_norm(spec.hidden, nn.BatchNorm1d),
            activation_layer(spec.activation),
            nn.Dropout(spec.dropout),
            nn.Linear(spec.hidden, classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return the map after the second pooling, (N, 64, H/4, W/4)."""
        out: Tensor = self.convolutions(self.lcn(x))
        return out

    def classify(self, f: Tensor) -> Tensor:
        """Return the logits of the fully connected part."""
        out: Tensor = self.dense(f)
        return out


def _batch_norm(width: int, kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d]) -> nn.Module:
    layer = kind(width, eps=1e-3, momentum=0.1)
    layer.weight.requires_grad_(False)  # TensorFlow's slim: centre, but no scale
    return layer


@register("model", "ross_cnn")
@dataclass(frozen=True, kw_only=True)
class RossCNN:
    """The network of Ross & Doshi-Velez: two 5x5 convolutions, one fully connected layer, batch norm.

    [LCN] - conv 5x5x32 SAME, BN, ReLU, max-pool 2 - conv 5x5x64 SAME, BN, ReLU, max-pool 2 - FC 1024, BN,
    ReLU - dropout - FC K.

    Images (N, C, H, W) in [0, 1], H and W at least 4. No linear head on pooled features, so no CAM.
    lcn puts local contrast normalisation first, inside the network, as for SVHN: attacks and input gradients go
    through it. lcn_mean says over what it averages the contrast: Jarrett et al., whom the paper cites, do it image by
    image, so that no image's logits depend on its batch mates; "batch" is what the authors' code does. It needs lcn.
    Source: Ross & Doshi-Velez 2018, Experiments; layer details (no bias before BN, BN without scale, decay 0.9,
    epsilon 1e-3, Glorot-uniform weights) from the authors' code, since the paper does not print them.
    Deviations: none known.
    """

    filters: Annotated[tuple[Count, Count], BeforeValidator(read_sequence)] = (32, 64)
    hidden: Count = 1024
    dropout: Share = 0.5
    lcn: Flag = False
    lcn_mean: LCNMean = "image"
    activation: Activation = "relu"

    def check(self) -> None:
        """Refuse an option of LCN without LCN: it would change nothing but the digest."""
        if self.lcn_mean != "image" and not self.lcn:
            raise SpecError(f"{title(type(self))}: lcn_mean={self.lcn_mean} needs lcn=true")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network; raise SpecError for images smaller than 4x4."""
        if min(size) < 4:
            raise SpecError(f"{title(type(self))} needs images of at least 4x4 pixels, not {size[0]}x{size[1]}")
        with building(self):
            return RossNetwork(channels, size, classes, self)
