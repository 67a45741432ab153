"""Regions of binary images: what is connected, holes, and where to cut a histogram."""

import torch
from torch import Tensor

_BINS = 256


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Return the largest of the values, int64 >= 0, in each 4-connected region of a mask (N, H, W); 0 outside.

    Every pass gives each unbroken line of pixels, across and then down, its largest value, until nothing changes.

    >>> spread(torch.tensor([[[3, 0, 9, 0, 1]]]), torch.tensor([[[1, 1, 0, 1, 1]]]).bool())
    tensor([[[3, 3, 0, 1, 1]]])
    """
    values = values * mask
    while True:
        spread_out = _along_lines(_along_lines(values, mask).mT, mask.mT).mT
        if torch.equal(spread_out, values):
            return values
        values = spread_out


def _along_lines(values: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value in each unbroken line along the last axis."""
    line = (~mask).cumsum(-1)  # the same number along a line
    best = values.new_zeros(*line.shape[:-1], line.shape[-1] + 1).scatter_reduce(-1, line, values, "amax")
    return best.gather(-1, line) * mask


def filled(mask: Tensor) -> Tensor:
    """Return a mask (N, H, W) with its holes, from which no 4-connected way leads to the image's edge, filled."""
    edge = torch.ones_like(mask, dtype=torch.int64)
    edge[:, 1:-1, 1:-1] = 0
    return spread(edge, ~mask) == 0


def large_regions(mask: Tensor, share: float) -> Tensor:
    """Return a mask (N, H, W) without the 4-connected regions smaller than `share` of its largest."""
    pixels = mask.shape[1] * mask.shape[2]
    number = torch.arange(1, pixels + 1, device=mask.device).view(1, *mask.shape[1:])
    region = spread(number.expand(mask.shape), mask).flatten(1)
    size = region.new_zeros(len(mask), pixels + 1).scatter_add(1, region, torch.ones_like(region))
    size[:, 0] = 0
    wanted = size.gather(1, region) >= share * size.amax(1, keepdim=True)
    return mask & wanted.view(mask.shape)


def otsu(values: Tensor) -> Tensor:
    """Return the threshold (N, 1, 1) that parts the values (N, H, W) in [0, 1] of each image best in two classes.

    Between-class variance w0 w1 (m0 - m1)^2 over a histogram of 256 bins, of equals the lowest; the upper class is
    values > threshold, none for a constant image.

    Source: Otsu 1979, equation 18.
    """
    bins = (values.double() * (_BINS - 1)).round().long().flatten(1)
    counts = torch.zeros(len(values), _BINS, dtype=torch.float64, device=values.device)
    counts = counts.scatter_add(1, bins, torch.ones_like(bins, dtype=torch.float64))
    level = torch.arange(_BINS, device=values.device, dtype=torch.float64)
    below, mass = counts.cumsum(1), (counts * level).cumsum(1)
    above = below[:, -1:] - below
    apart = mass / below.clamp(min=1) - (mass[:, -1:] - mass) / above.clamp(min=1)
    best = (below * above * apart.square()).argmax(1)
    constant = (below * above == 0).all(1)
    cut = torch.where(constant, _BINS, best.double() + 0.5) / (_BINS - 1)
    return cut.to(values.dtype).view(-1, 1, 1)
