"""A compact stylizer for who has no VGG: a small encoder and decoder that are fitted on one's own images."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import CheckpointError
from pellucid.transforms.adain import Stylizer, adain
from pellucid.weights import is_pickle, load_weights, read_weights

NOTE = "stylizer"  # the key of a file's metadata under which it says what it is, as JSON


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode="reflect")


class CompactStylizer(Stylizer):
    """Three levels of `width`, 2 width and 4 width channels at 1, 1/2 and 1/4 of the size, and a decoder.

    Convolutions 3x3 with reflection padding and ReLU: one at the first level, two at the others, the first of which
    halves the sides. AdaIN is applied to the deepest `levels` maps and to the pixels; the decoder doubles pixels on its
    way up and is given each of those maps where its size is reached.

    x' = AdaIN(t_0 + D(t_1 ... t_levels), t_0),   t_0 the pixels after AdaIN, t_i the maps after AdaIN

    What the decoder D draws is added to the image with its colours matched, and the sum has the colours' mean and
    deviation again. Source: Huang & Belongie 2017. Deviations: theirs decodes the deepest map of a larger network;
    maps of several levels and the pixels are ours, since the deepest map of a small encoder holds too little of the
    shapes, and its decoder reaches the contrasts of paintings only that it has seen.
    """

    stride: ClassVar[int] = 4

    def __init__(self, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        self.called = "AdaIN, compact autoencoder"
        self.width, self.levels = width, levels
        wide = (width, 2 * width, 4 * width)
        self.encoder = nn.ModuleList(
            [
                nn.ModuleList([_convolution(3, wide[0])]),
                *(nn.ModuleList([_convolution(a, b, 2), _convolution(b, b)]) for a, b in itertools.pairwise(wide)),
            ]
        )
        self.decoder = nn.ModuleList()
        for level in (2, 1, 0):
            given = wide[level] * (2 if level < 2 and level > 2 - levels else 1)
            leaving = wide[level - 1] if level else 3
            self.decoder.append(nn.ModuleList([_convolution(given, wide[level]), _convolution(wide[level], leaving)]))

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the encoder's five convolutions, in order; the maps are behind the first, third and fifth."""
        return [cast(nn.Conv2d, layer) for level in self.encoder for layer in cast(nn.ModuleList, level)]

    def all_features(self, images: Tensor) -> list[Tensor]:
        """Return the maps of all three levels, the largest first."""
        x, found = 2 * images - 1, []
        for level in self.encoder:
            for layer in cast(nn.ModuleList, level):
                x = layer(x).relu()
            found.append(x)
        return found

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the pixels and the deepest `levels` maps, the deepest last."""
        return (images, *self.all_features(images)[-self.levels :])

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return images of pixels and the deepest maps."""
        pixels, *maps = features
        return adain(pixels + self.drawn(maps), pixels)

    def drawn(self, maps: Sequence[Tensor]) -> Tensor:
        """Return what the decoder makes of the deepest maps, (N, 3, H, W)."""
        x = maps[-1]
        for number, layers in enumerate(self.decoder):
            enter, leave = cast(nn.ModuleList, layers)
            if 0 < number < self.levels:
                x = torch.cat([x, maps[-1 - number]], 1)
            x = leave(enter(x).relu())
            if number < 2:
                x = functional.interpolate(x.relu(), scale_factor=2, mode="nearest")
        return x


def told(path: Path) -> dict[str, Any] | None:
    """Return what a file of weights says about the stylizer in it; None where it says nothing."""
    if is_pickle(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            note = (file.metadata() or {}).get(NOTE)
        found = None if note is None else json.loads(note)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is corrupt or truncated ({error})") from None
    return found if isinstance(found, dict) else None


def note(about: Mapping[str, Any]) -> dict[str, str]:
    """Return a file's metadata that say what the stylizer in it is; width and levels must be among it."""
    return {NOTE: json.dumps(about, sort_keys=True)}


def compact_stylizer(path: Path) -> CompactStylizer:
    """Return the stylizer in a file of `pellucid stylize fit`; CheckpointError where it is none, or damaged."""
    about = told(path) or {}
    width, levels = about.get("width"), about.get("levels")
    if type(width) is not int or not 1 <= width <= 1024 or levels not in (1, 2, 3):
        raise CheckpointError(f"{path} does not say which stylizer it holds; take a file of pellucid stylize fit")
    network = CompactStylizer(width, levels)
    load_weights(network, read_weights(path), str(path))
    network.called = str(about.get("called", network.called))
    return network.eval().requires_grad_(False)
