"""VGG-19 to relu4_1 and its mirror, as Huang & Belongie have them, with weights from files; and as a measuring net."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import CheckpointError
from pellucid.transforms.adain import Stylizer
from pellucid.weights import load_weights

ENCODER = {"0": (3, 3), "2": (3, 64), "5": (64, 64), "9": (64, 128), "12": (128, 128), "16": (128, 256)}
ENCODER |= {"19": (256, 256), "22": (256, 256), "25": (256, 256), "29": (256, 512)}
DECODER = {"1": (512, 256), "5": (256, 256), "8": (256, 256), "11": (256, 256), "14": (256, 128)}
DECODER |= {"18": (128, 128), "21": (128, 64), "25": (64, 64), "28": (64, 3)}
_LAST = 29  # the convolution below relu4_1; files hold those above it too

TORCHVISION = {"0": (3, 64), "2": (64, 64), "5": (64, 128), "7": (128, 128), "10": (128, 256), "12": (256, 256)}
TORCHVISION |= {"14": (256, 256), "16": (256, 256), "19": (256, 512)}
_MEASURED = {"0": "relu1_1", "5": "relu2_1", "10": "relu3_1", "19": "relu4_1"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _convolutions(table: Mapping[str, tuple[int, int]]) -> nn.ModuleDict:
    return nn.ModuleDict({key: nn.Conv2d(a, b, 1 if key == "0" and a == b else 3) for key, (a, b) in table.items()})


def _reflected(layer: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = layer(functional.pad(x, (1, 1, 1, 1), mode="reflect"))
    return out


class VGGStylizer(Stylizer):
    """The encoder, a normalised VGG-19 with a 1x1 convolution first, and the decoder that mirrors it.

    Reflection padding; max-pooling on the way down, doubling of pixels on the way up. AdaIN is applied to relu4_1.
    Source: Huang & Belongie 2017, section 6.1. Deviations: none.
    """

    stride: ClassVar[int] = 8

    def __init__(self) -> None:
        super().__init__()
        self.called = "AdaIN, VGG-19 relu4_1"
        self.encoder, self.decoder = _convolutions(ENCODER), _convolutions(DECODER)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return relu4_1, (N, 512, H / 8, W / 8)."""
        x = self.encoder["0"](images)
        for key in list(ENCODER)[1:]:
            x = _reflected(self.encoder[key], x).relu()
            if key in ("5", "12", "25"):
                x = functional.max_pool2d(x, 2)
        return (x,)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return images of relu4_1."""
        x = features[0]
        for key in DECODER:
            x = _reflected(self.decoder[key], x)
            x = x if key == "28" else x.relu()
            if key in ("1", "14", "21"):
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return x


def vgg_stylizer(
    encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], origins: tuple[str, str] = ("encoder", "decoder")
) -> VGGStylizer:
    """Return the stylizer with weights under the names of the public files, vgg_normalised.pth and decoder.pth.

    Names are those of PyTorch's sequences: "0.weight", "2.weight" ... "29.bias" (those above, to relu5_4, are left out)
    and "1.weight" ... "28.bias". Raises CheckpointError for other names or shapes, with the first difference.
    """
    network = VGGStylizer()
    if _features(encoder):
        raise CheckpointError(
            f"{origins[0]} is the classifier VGG-19 (names such as features.0.weight), which can measure styles; "
            "stylising takes the normalised VGG of Huang & Belongie, vgg_normalised.pth"
        )
    below = {
        key: v for key, v in encoder.items() if not (key.split(".")[0].isdigit() and int(key.split(".")[0]) > _LAST)
    }
    load_weights(network.encoder, below, f"the encoder {origins[0]}")
    load_weights(network.decoder, dict(decoder), f"the decoder {origins[1]}")
    return network.eval().requires_grad_(False)


def _features(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("features."): value for key, value in weights.items() if key.startswith("features.")}


class VGGFeatures(nn.Module):
    """The classifier VGG-19 from torchvision's file, read at relu1_1, relu2_1, relu3_1, relu4_1: a measuring network.

    Zero padding, max-pooling, ImageNet's mean and deviation. Source: Simonyan & Zisserman 2015; the layers are those of
    the style loss of Huang & Belongie 2017, section 5.
    """

    layers: ClassVar[tuple[str, ...]] = tuple(_MEASURED.values())

    def __init__(self, weights: Mapping[str, Tensor], origin: str = "the file") -> None:
        """weights under torchvision's names, features.0.weight ...; CheckpointError for other names or shapes."""
        super().__init__()
        self.convolutions = nn.ModuleDict({k: nn.Conv2d(a, b, 3, padding=1) for k, (a, b) in TORCHVISION.items()})
        below = {key: value for key, value in _features(weights).items() if key.split(".")[0] in TORCHVISION}
        load_weights(self.convolutions, below, origin)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of RGB images (N, 3, H, W) in [0, 1], by the names of the layers."""
        x, found = (images - self.get_buffer("mean")) / self.get_buffer("std"), {}
        for key, layer in self.convolutions.items():
            x = layer(x).relu()
            if key in _MEASURED:
                found[_MEASURED[key]] = x
            if key in ("2", "7", "16"):
                x = functional.max_pool2d(x, 2)
        return found
