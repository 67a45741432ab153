"""Adaptive instance normalisation: the mean and deviation of each feature channel, taken from another image."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, recording

EPS = 1e-5  # added to variances, as the authors do
_STEP, _TINY = 0.04, 1e-12  # of descent on pixels; the least gradient that is divided by

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation (N, C, 1, 1) of each channel."""


class Stylizer(nn.Module):
    """An encoder and a decoder: RGB images in [0, 1] to feature maps and back.

    `features` gives the maps, one or several, that AdaIN is applied to; `decode` takes maps of those shapes. `stride`
    is how much smaller the smallest are: sides must be multiples of it, and at least twice as long.
    `called` names it in results, together with where its weights come from. `refine` is how many steps of `refined`
    follow the decoder where nobody says otherwise.
    """

    stride: ClassVar[int]
    refine: ClassVar[int] = 0
    called: str

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps (N, D, h, w) of images (N, 3, H, W)."""
        raise NotImplementedError

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return the images (N, 3, H, W), unbounded, that maps stand for."""
        raise NotImplementedError


def moments(features: Tensor) -> Moments:
    """Return the mean and sqrt(unbiased variance + 1e-5) of each channel of maps (N, C, h, w), as (N, C, 1, 1).

    Raises InputError for maps of one position, whose variance is not defined.
    """
    if features.shape[-2:].numel() < 2:
        raise InputError("features of a single position have no variance: larger images are needed")
    return features.mean((2, 3), keepdim=True), (features.var((2, 3), keepdim=True) + EPS).sqrt()


def adain(content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the content's features with the mean and deviation of the style's, per image and channel.

    t = std(s) (c - mean(c)) / std(c) + mean(s);  result = alpha t + (1 - alpha) c

    content (N, C, h, w), style (N, C, h', w') or of one image for all -> (N, C, h, w). Variances are unbiased, with
    1e-5 added. Raises InputError for other shapes. Source: Huang & Belongie 2017, equations 8 and 14. Deviations: none.

    >>> content, style = torch.tensor([[[[0.0, 1.0, 2.0]]]]), torch.tensor([[[[10.0, 20.0, 30.0]]]])
    >>> adain(content, style).round(decimals=3)
    tensor([[[[10., 20., 30.]]]])
    """
    if content.ndim != 4 or style.ndim != 4 or style.shape[1] != content.shape[1]:
        raise InputError(
            f"features (N, C, h, w) of as many channels are needed; got {tuple(content.shape)}, {tuple(style.shape)}"
        )
    if len(style) not in (1, len(content)):
        raise InputError(f"one style for all images or one for each is needed; got {len(style)} for {len(content)}")
    return _restyled(content, moments(style), alpha)


def _restyled(content: Tensor, style: Moments, alpha: float) -> Tensor:
    (mean, deviation), (new_mean, new_deviation) = moments(content), style
    moved = new_deviation * (content - mean) / deviation + new_mean
    return moved if alpha == 1 else alpha * moved + (1 - alpha) * content


def stylised(
    network: Stylizer,
    content: Tensor,
    style: Tensor,
    alpha: float = 1.0,
    batch_size: int = 32,
    refine: int | None = None,
) -> Tensor:
    """Return images with the style of others: decode(AdaIN(features(content), features(style))), clipped to [0, 1].

    content (N, 3, H, W) and style (N, 3, h, w), or (1, 3, h, w) for all, in [0, 1]; any size: sides are continued by
    reflection to the next multiple of the network's stride, and what was added is cut off again. alpha in [0, 1] goes
    from what encoder and decoder make of the image (0) to the whole style (1); refine is a number of steps of
    `refined`, None for the network's own. The network must have the images' dtype and device. Raises InputError for
    other than RGB images in [0, 1] and for another number of styles.
    Source: Huang & Belongie 2017, sections 5 and 7. Deviations: sides that are no multiples.
    """
    content, style = check_images(content), check_images(style)
    if len(style) not in (1, len(content)) or content.shape[1] != 3 or style.shape[1] != 3:
        raise InputError(
            f"RGB images and one style, or as many, are needed; got {tuple(content.shape)}, {tuple(style.shape)}"
        )
    one, made = len(style) == 1, []
    known = style_moments(network, style, batch_size) if one else []
    for number, part in enumerate(batches(content, batch_size)):
        own = known or style_moments(network, style[number * batch_size :][: len(part)])
        made.append(restyled(network, part, own, alpha, refine))
    return torch.cat(made) if made else content.clone()


def style_moments(network: Stylizer, style: Tensor, batch_size: int = 32) -> list[Moments]:
    """Return the moments of style images (N, 3, h, w), of each of the network's feature maps."""
    with recording(False):
        parts = [
            [moments(maps) for maps in network.features(continued(part, network.stride))]
            for part in batches(style, batch_size)
        ]
    return [
        (torch.cat([mean for mean, _ in level]), torch.cat([deviation for _, deviation in level]))
        for level in zip(*parts)
    ]


def restyled(
    network: Stylizer, content: Tensor, style: Sequence[Moments], alpha: float = 1.0, refine: int | None = None
) -> Tensor:
    """Return images (N, 3, H, W) with the moments of styles, of one or of each, in [0, 1]."""
    height, width = content.shape[-2:]
    with recording(False):
        features = network.features(continued(content, network.stride))
        wanted = [_restyled(maps, level, alpha) for maps, level in zip(features, style)]
        made = network.decode(wanted).clamp(0, 1)
        steps = network.refine if refine is None else refine
        made = refined(network, made, [moments(maps) for maps in wanted], steps) if steps else made
        return made[..., :height, :width].clone()


def refined(network: Stylizer, images: Tensor, wanted: Sequence[Moments], steps: int) -> Tensor:
    """Return images (N, 3, H, W) with features' moments nearer to those wanted, by steps of descent on the pixels.

    L = sum over maps of (mean (m - M)^2 + mean (s - S)^2) / mean S^2,  m, s the moments of f(x), M, S those wanted
    v <- v / 2 + g / (2 rms(g)),  x <- clip(x - 0.04 min(1, sqrt(L)) v),  g = dL/dx, for each image by itself

    Source: the style loss of Huang & Belongie 2017, equation 13, lowered on the pixels as Gatys et al. 2016 do.
    Deviations: the rule of descent; no content loss, since a few steps from an image that has the content keep it.
    """
    velocity = torch.zeros_like(images)
    for _ in range(steps):
        with recording():
            x = images.detach().requires_grad_(True)
            loss = x.new_zeros(len(x))
            for maps, (mean, deviation) in zip(network.features(x), wanted):
                own_mean, own_deviation = moments(maps)
                off = (own_mean - mean) ** 2 + (own_deviation - deviation) ** 2
                loss = loss + off.mean((1, 2, 3)) / (deviation**2).mean((1, 2, 3))
            slope = torch.autograd.grad(loss.sum(), x)[0]
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=_TINY)
        velocity = velocity / 2 + slope / (2 * size)
        step = _STEP * loss.detach().sqrt().clamp(max=1).view(-1, 1, 1, 1)
        images = (images - step * velocity).clamp(0, 1)
    return images


def continued(images: Tensor, multiple: int) -> Tensor:
    """Return images continued below and on the right, by reflection, to sides that are multiples, two at least.

    >>> continued(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 2)[0, 0, 0]
    tensor([1., 2., 3., 2.])
    """
    for axis in (2, 3):
        side = images.shape[axis]
        wanted = max(2, -(-side // multiple)) * multiple
        if wanted != side:
            period = torch.arange(wanted, device=images.device) % max(1, 2 * side - 2)
            images = images.index_select(axis, torch.minimum(period, (2 * side - 2 - period).abs()))
    return images
