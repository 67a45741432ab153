"""The convolutional network of Ross & Doshi-Velez 2018."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.models.classifier import Classifier, building
from pellucid.spec import Count, Share, read_sequence, register, title


class RossNetwork(Classifier):
    """See RossCNN."""

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, filters: tuple[int, int], hidden: int, dropout: float
    ) -> None:
        super().__init__(channels=channels)
        first, second = filters
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2, bias=False),
            _batch_norm(first, nn.BatchNorm2d),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2, bias=False),
            _batch_norm(second, nn.BatchNorm2d),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(second * (size[0] // 4) * (size[1] // 4), hidden, bias=False),
            _batch_norm(hidden, nn.BatchNorm1d),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """Return the map after the second pooling, (N, 64, H/4, W/4)."""
        out: Tensor = self.convolutions(x)
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

    conv 5x5x32 SAME, BN, ReLU, max-pool 2 - conv 5x5x64 SAME, BN, ReLU, max-pool 2 - FC 1024, BN,
    ReLU - dropout - FC K.

    Images (N, C, H, W) in [0, 1], H and W at least 4. No linear head on pooled features, so no CAM.
    Source: Ross & Doshi-Velez 2018, Experiments; layer details (no bias before BN, BN without scale, decay 0.9,
    epsilon 1e-3, Glorot-uniform weights) from the authors' code, since the paper does not print them.
    Deviations: none known; the LCN front end for SVHN is not part of this class yet.
    """

    filters: Annotated[tuple[Count, Count], BeforeValidator(read_sequence)] = (32, 64)
    hidden: Count = 1024
    dropout: Share = 0.5

    def build(self, channels: int, size: tuple[int, int], classes: int) -> Classifier:
        """Return a freshly initialised network; raise SpecError for images smaller than 4x4."""
        if min(size) < 4:
            raise SpecError(f"{title(type(self))} needs images of at least 4x4 pixels, not {size[0]}x{size[1]}")
        with building(self):
            return RossNetwork(channels, size, classes, self.filters, self.hidden, self.dropout)
