"""How near an image comes to the style of another, and how much of its own contours it keeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.guard import check_images, frozen
from pellucid.maths.edges import sobel
from pellucid.maths.gram import gram
from pellucid.models.layers import layer_of, run_with_graph

Features = Callable[[Tensor], Mapping[str, Tensor]]
"""Images (N, C, H, W) to feature maps (N, D, h, w), by the names of their layers."""
SIZES = (3, 5, 7, 11, 15)
_RIDGE = 1e-5  # added to the variances of colours


class RandomTextures(nn.Module):
    """A measuring network that everybody has: one layer of random filters of several sizes, rectified.

    f_k(x) = max(0, w_k * x), w_k normal numbers of variance 1 / (C k^2), k = 3, 5, 7, 11, 15: `filters` of each size,
    reflection at the edges. zero_mean (the default) takes the mean out of every filter and colour, so that even
    surfaces excite none and the measure is of texture; without, colour and brightness make up most of it. Drawn on the
    CPU from `seed`: the same weights everywhere. Layers are called random3 ... random15.

    Images (N, channels, H, W) of sides above 7 -> maps (N, filters, H, W). Source: Ustyuzhaninov et al. 2016 (random
    filters of several sizes, one layer). Deviations: 32 filters of five sizes for 128 of eight, normal for uniform
    numbers, zero_mean.
    """

    def __init__(self, seed: int = 0, filters: int = 32, channels: int = 3, zero_mean: bool = True) -> None:
        super().__init__()
        draw = torch.Generator("cpu").manual_seed(seed)
        for size in SIZES:
            weights = torch.randn(filters, channels, size, size, generator=draw) / math.sqrt(channels * size**2)
            weights = weights - weights.mean((2, 3), keepdim=True) if zero_mean else weights
            self.register_buffer(f"random{size}", weights)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(f"random{size}" for size in SIZES)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps, by the names of their layers."""
        if min(images.shape[-2:]) <= max(SIZES) // 2:
            raise InputError(f"random filters of up to {max(SIZES)} pixels need larger images, not {images.shape[-2:]}")
        found = {}
        for size in SIZES:
            padded = functional.pad(images, (size // 2,) * 4, mode="reflect")
            found[f"random{size}"] = functional.conv2d(padded, self.get_buffer(f"random{size}").to(images)).relu()
        return found


class NamedLayers(nn.Module):
    """The outputs of some layers of a trained network, which is read in eval mode: a measuring network."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        """layers as `named_modules` calls them; InputError for one that is not there."""
        super().__init__()
        self.network, self.layers = network, tuple(layers)
        self.places = {name: layer_of(network, name) for name in layers}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps, by the names of their layers."""
        with frozen(self.network):
            found, _ = run_with_graph(self.network, self.places, images)
        return found


@torch.no_grad()
def gram_distance(features: Features, images: Tensor, styles: Tensor) -> dict[str, Tensor]:
    """Return how far images are from styles in texture: by layer, (N,).

    d_l = ||G_l(x) - G_l(s)||_F / ||G_l(s)||_F

    0: the same statistics; 1: as far as an image without any features. The norm is not squared: half of it is a quarter
    of the style loss of Gatys et al. 2016 (equation 4). images (N, C, H, W), styles (N, C, h, w) or (1, C, h, w) for
    all, in [0, 1]. Raises InputError for other shapes, and for a style without any features, as an even surface.
    """
    images, styles = check_images(images), check_images(styles)
    if len(styles) not in (1, len(images)) or images.shape[1] != styles.shape[1]:
        raise InputError(
            f"one style, or one an image, is needed; got {tuple(styles.shape)} for images {tuple(images.shape)}"
        )
    found = {}
    own, theirs = features(images), features(styles)
    for name, maps in own.items():
        wanted = gram(theirs[name])
        size = wanted.flatten(1).norm(dim=1)
        if bool((size == 0).any()):
            raise InputError(f"a style excites nothing at {name}: distances from it are not defined")
        found[name] = (gram(maps) - wanted).flatten(1).norm(dim=1) / size
    return found


def edge_correlation(images: Tensor, others: Tensor) -> Tensor:
    """Return the correlation of the contours of two images, (N,) in [-1, 1]; NaN where one has none.

    Pearson's r over positions of ||Sobel x|| and ||Sobel x'||, the magnitude of the gradient of the luma.

    images, others (N, C, H, W) of one size. Raises InputError for other shapes. Source: none.
    """
    images, others = check_images(images), check_images(others)
    if images.shape[0] != others.shape[0] or images.shape[2:] != others.shape[2:]:
        raise InputError(f"images of one size are needed; got {tuple(images.shape)} and {tuple(others.shape)}")
    first, second = (sobel(x).flatten(1).double() for x in (images, others))
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    sizes = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(sizes > 1e-12, (first * second).sum(1) / sizes.clamp(min=1e-12), torch.nan)


def colour_matched(images: Tensor, styles: Tensor, form: Literal["moments", "covariance"] = "moments") -> Tensor:
    """Return images with the colour statistics of styles, their texture left alone: what stylising is compared with.

    moments: each channel's mean and deviation; covariance: x' = mean_s + C_s^(1/2) C_x^(-1/2) (x - mean_x), C the
    covariance of the channels, 1e-5 added to the variances. Clipped to [0, 1].

    images (N, C, H, W), styles (N, C, h, w) or (1, C, h, w) for all, in [0, 1] -> (N, C, H, W). Raises InputError for
    other shapes. Source: moments: Reinhard et al. 2001; covariance: Gatys et al. 2017, section 5.1. Deviations:
    moments of RGB, not of their decorrelated colours.
    """
    images, styles = check_images(images), check_images(styles)
    if len(styles) not in (1, len(images)) or images.shape[1] != styles.shape[1]:
        raise InputError(
            f"one style, or one an image, is needed; got {tuple(styles.shape)} for images {tuple(images.shape)}"
        )
    mean, covariance = _colours(images)
    new_mean, new_covariance = _colours(styles)
    if form == "moments":
        take, give = (
            torch.diag_embed(c.diagonal(dim1=1, dim2=2) ** power)
            for c, power in ((covariance, -0.5), (new_covariance, 0.5))
        )
    else:
        take, give = _power(covariance, -0.5), _power(new_covariance, 0.5)
    centred = images.flatten(2) - mean
    matched: Tensor = give @ take @ centred + new_mean
    return matched.view_as(images).clamp(0, 1)


def _colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (N, C, 1) and covariance (N, C, C) of the colours of images."""
    flat = images.flatten(2)
    mean = flat.mean(2, keepdim=True)
    ridge = _RIDGE * torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    return mean, (flat - mean) @ (flat - mean).mT / flat.shape[2] + ridge


def _power(matrices: Tensor, power: float) -> Tensor:
    """Return a power of positive symmetric matrices."""
    values, vectors = torch.linalg.eigh(matrices)
    made: Tensor = vectors @ torch.diag_embed(values.clamp(min=_RIDGE) ** power) @ vectors.mT
    return made
