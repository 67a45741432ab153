"""Colour images as grey ones in which differences of colour stay visible."""

import math

import torch
from torch import Tensor

from pellucid.rng import Stream

LUMINANCE = (0.2989360212937753847527155, 0.5870430744511212909351327, 0.1140209042551033243121518)
SCALE = math.hypot(*LUMINANCE)  # the largest difference of luminance at a colour difference of 1
SATURATION = math.sqrt(1.25)  # the largest saturation in the RGB cube
TINY = 100 * torch.finfo(torch.float64).eps


def decolorized(
    images: Tensor, *, rng: Stream | None = None, effect: float = 0.5, scale: float | None = None, noise: float = 0.001
) -> Tensor:
    """Return grey images (N, 1, H, W) that show luminance, and differences of colour along each image's main axis.

    Y, P = (R + G)/2 - B and Q = R - G of every pixel. Each is paired with another, at a Gaussian displacement of
    standard deviation sqrt(2/pi) `scale` along each side (`scale`: the size of features in pixels, by default
    sqrt(2 min(H, W))). The axis is the sum over pairs of (dP, dQ) sign(dY), weighted by the share of contrast that
    luminance loses, 1 - |dY| / (0.6686 |dRGB|). The colour K along it, over the (1 - noise)-quantile of |K|, gives

    U = Y + effect K, its range (by noise-quantiles) moved to effect [0, 1] + (1 - effect) range(Y),
    grey = U clipped to Y -+ effect S / sqrt(1.25), S = sqrt(P^2 + Q^2), and to [0, 1].

    So grey pixels stay as they are. Images (N, 3, H, W) float in [0, 1]; computed in float64, returned in their dtype.
    The pairs are those of `rng` for each image by itself, by default Stream(). effect in [0, 1], noise in [0, 1/2).

    Source: Grundland & Dodgson 2007, with the default values and the quantiles of the authors' code.
    Deviations: displacements that leave the image are mirrored at its edge pixels, as often as needed.
    """
    rgb = images.to(torch.float64)
    y, p, q = _ypq(rgb)
    height, width = y.shape[1:]
    partner = _partners(rgb, rng or Stream(), math.sqrt(2 * min(height, width)) if scale is None else scale)
    towards_p, towards_q = _axis(rgb, partner)
    colour = p * towards_p[:, None, None] + q * towards_q[:, None, None]
    colour = colour / (quantile(colour.abs(), 1 - noise) + TINY)[:, None, None]
    mixed = y + effect * colour
    low, high = (quantile(mixed, share)[:, None, None] for share in (noise, 1 - noise))
    floor, top = (quantile(y, share)[:, None, None] for share in (noise, 1 - noise))
    floor, top = (1 - effect) * floor, effect + (1 - effect) * top
    mixed = floor + (mixed - low) / (high - low + TINY) * (top - floor)
    reach = effect / SATURATION * torch.hypot(p, q)
    return mixed.clamp(y - reach, y + reach).clamp(0, 1)[:, None].to(images.dtype)


def _ypq(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return luminance Y, yellow against blue P and red against green Q of colours (N, 3, ...), each (N, ...)."""
    red, green, blue = rgb.unbind(1)
    y = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
    return y, (red + green) / 2 - blue, red - green


def _partners(rgb: Tensor, rng: Stream, scale: float) -> Tensor:
    """Return the flat place (N, HW) of the pixel that each pixel is compared with."""
    height, width = rgb.shape[2:]
    places = []
    for name, axis, side in (("down", 0, height), ("across", 1, width)):
        shift = rng.child("pairs", name).normal(rgb, (height, width)) * (scale * math.sqrt(2 / math.pi))
        own = torch.arange(side, dtype=rgb.dtype, device=rgb.device)
        places.append(_mirrored((own[:, None] if axis == 0 else own) + shift, side))
    return (places[0] * width + places[1]).flatten(1)


def _mirrored(place: Tensor, side: int) -> Tensor:
    """Return whole places in 0..side-1, those outside mirrored at the first and the last."""
    if side == 1:
        return torch.zeros_like(place, dtype=torch.int64)
    period = 2 * (side - 1)
    inside = place.round().to(torch.int64).remainder(period)
    return torch.minimum(inside, period - inside)


def _axis(rgb: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Return the axis of each image in the plane of P and Q, two tensors (N,)."""
    flat = rgb.flatten(2)
    change = flat - flat.gather(2, partner[:, None].expand(-1, 3, -1))
    y, p, q = _ypq(change)
    distance = change.square().sum(1).sqrt()
    lost = torch.where(distance > TINY, 1 - y.abs() / (SCALE * distance).clamp(min=TINY), 0) * y.sign()
    return (lost * p).sum(1), (lost * q).sum(1)


def quantile(values: Tensor, share: float) -> Tensor:
    """Return a quantile of each image (N, ...), (N,): linear between the order statistics, the i-th at (i - 1/2)/n.

    >>> quantile(torch.tensor([[1., 2., 3., 4.]]), 0.25)
    tensor([1.5000])
    """
    if share > 0.5:
        return -quantile(-values, 1 - share)
    flat = values.flatten(1)
    n = flat.shape[1]
    place = min(max(n * share - 0.5, 0), n - 1)
    below, part = int(place), place - int(place)
    lowest = flat.topk(min(below + 2, n), largest=False).values
    return lowest[:, below] + part * (lowest[:, -1] - lowest[:, below])
