"""From raw maps to something to look at: one channel, one size, one scale."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError

Colours = Literal["coolwarm", "jet", "RdBu_r", "magma"]


class Scaled(NamedTuple):
    """Maps in [0, 1] (or [-1, 1] if signed), and which of them were constant and could not be scaled."""

    maps: Tensor
    degenerate: Tensor


def reduce_channels(maps: Tensor, how: Literal["sum", "abs_sum", "abs_max"] = "sum") -> Tensor:
    """Reduce (N, C, H, W) to (N, H, W); maps without channels are returned as they are."""
    if maps.ndim == 3:
        return maps
    if how == "sum":
        return maps.sum(1)
    return maps.abs().sum(1) if how == "abs_sum" else maps.abs().amax(1)


def resize(maps: Tensor, size: tuple[int, int], mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
    """Resize (N, h, w) to (N, *size), for display and for measures that look at places; ranks are those of raw maps."""
    corners = {"align_corners": False} if mode == "bilinear" else {}
    return functional.interpolate(maps[:, None], size=size, mode=mode, **corners)[:, 0]


def scale(maps: Tensor, percentile: float = 99.0, signed: bool = True) -> Scaled:
    """Divide each map (N, ...) by the given percentile of its absolute values and clip to [-1, 1] or [0, 1].

    A map whose values are all alike (zero, or constant when unsigned) becomes zeros and is marked degenerate.
    """
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps  # quantile takes no half
    flat = maps.flatten(1) if signed else (maps - maps.flatten(1).amin(1).view(-1, *[1] * (maps.ndim - 1))).flatten(1)
    size = flat.abs()
    span = torch.quantile(size, percentile / 100, dim=1) if size.numel() else size.sum(1)
    span = torch.where(span > 0, span, size.amax(1) if size.numel() else span)  # a very sparse map: its largest value
    degenerate = ~(span > 0) | ~span.isfinite()
    divisor = torch.where(degenerate, torch.ones_like(span), span)
    scaled = (flat / divisor[:, None]).clamp(-1 if signed else 0, 1)
    return Scaled(torch.where(degenerate[:, None], torch.zeros_like(scaled), scaled).view_as(maps), degenerate)


def overlay(
    images: Tensor, maps: Tensor, strength: float = 0.5, colours: Colours = "coolwarm", signed: bool = True
) -> Tensor:
    """Return images under their maps in colour, (N, 3, H, W) in [0, 1]: (1 - strength) x + strength colour(map).

    images (N, 1 or 3, H, W) in [0, 1]; maps (N, h, w) or (N, C, H, W), raw: channels are summed, the map is resized
    bilinearly and scaled by itself. A signed map of 0 has the middle colour; degenerate maps have it everywhere.
    For display only. Raises InputError for images with another number of channels, and for other numbers of maps.
    Source: Boopathy et al. 2020, Figure 1 (half and half). Deviation: the scale is the map's 99th percentile.

    >>> overlay(torch.zeros(1, 1, 4, 4), torch.ones(1, 2, 2), strength=0.25).shape
    torch.Size([1, 3, 4, 4])
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(maps) != len(images) or maps.ndim not in (3, 4):
        raise InputError(
            f"an overlay needs images (N, 1 or 3, H, W) and as many maps; got {tuple(images.shape)} and "
            f"{tuple(maps.shape)}"
        )
    import matplotlib  # takes long to import; only who draws pays

    coarse = reduce_channels(maps.detach().to(images.device))
    wide = scale(resize(coarse, (images.shape[2], images.shape[3])), signed=signed).maps
    place = ((wide + 1) / 2 if signed else wide).mul(255).round().long()
    table = torch.as_tensor(matplotlib.colormaps[colours](range(256))[:, :3]).to(images)
    return (1 - strength) * images + strength * table[place].permute(0, 3, 1, 2)
