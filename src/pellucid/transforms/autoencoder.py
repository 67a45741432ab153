"""A compact stylizer for who has no VGG: a small encoder and decoder that are fitted on one's own images."""

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


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


class CompactStylizer(Stylizer):
    """Three levels of `width`, 2 width and 4 width channels at 1, 1/2 and 1/4 of the size, and a decoder.

    Convolutions 3x3 with reflection padding and ReLU, one at the first level, two at the others, with average pooling
    between levels (strides would let grids of pixels pass unseen). AdaIN is applied to the deepest `levels` maps and to
    the pixels; the decoder doubles pixels on its way up and is given each of those maps where its size is reached.

    x' = AdaIN(t_0 + D(t_1 ... t_levels), t_0),   t_0 the pixels after AdaIN, t_i the maps after AdaIN

    What the decoder D draws is added to the image with its colours matched, and the sum has the colours' mean and
    deviation again. Source: Huang & Belongie 2017. Deviations: theirs decodes the deepest map of a larger network;
    maps of several levels and the pixels are ours, since the deepest map of a small encoder holds too little of the
    shapes, and its decoder reaches the contrasts of paintings only that it has seen; and 40 steps of `refined` follow,
    since a small decoder falls short of the statistics that it was asked for.
    """

    stride: ClassVar[int] = 4
    refine: ClassVar[int] = 40

    def __init__(self, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        self.called = "AdaIN, compact autoencoder"
        self.width, self.levels = width, levels
        wide = (width, 2 * width, 4 * width)
        inputs = (3, wide[0], wide[1], wide[1], wide[2])
        self.encoder = nn.ModuleList(map(_convolution, inputs, (*inputs[1:], wide[2])))
        self.decoder = nn.ModuleList()
        for level in (2, 1, 0):
            given = wide[level] * (2 if level < 2 and level > 2 - levels else 1)
            leaving = wide[level - 1] if level else 3
            self.decoder.append(nn.ModuleList([_convolution(given, wide[level]), _convolution(wide[level], leaving)]))

    def all_features(self, images: Tensor, norms: nn.ModuleList | None = None) -> list[Tensor]:
        """Return the maps of all three levels, the largest first; norms, where given, stand behind the convolutions."""
        x, found = 2 * images - 1, []
        for place, layer in enumerate(self.encoder):
            x = layer(functional.avg_pool2d(x, 2) if place in (1, 3) else x)
            x = (x if norms is None else norms[place](x)).relu()
            if place in (0, 2, 4):
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
