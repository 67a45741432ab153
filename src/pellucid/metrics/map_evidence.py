"""What of a saliency map counts, at the size of the image: the first step of the measures that look at places."""

from typing import Literal, get_args

from torch import Tensor

from pellucid.errors import InputError
from pellucid.interpreters.heatmap import reduce_channels, resize

Sign = Literal["magnitude", "positive"]


def evidence(maps: Tensor, size: tuple[int, int], sign: Sign = "magnitude") -> Tensor:
    """Return what of signed maps counts as evidence, at the size of the image; never negative.

    magnitude: sum_c |I_c|, both what speaks for and what speaks against the class; positive: max(sum_c I_c, 0),
    only what speaks for it. The sign is read at the map's own resolution, then the map is resized bilinearly.

    maps (N, h, w) or (N, C, h, w), no larger than size (H, W) -> float64 (N, H, W), in the map's unit. An axis of
    classes would be taken for channels: of several classes hand over one, maps[:, m]. Raises InputError for other
    shapes and another sign.

    >>> import torch
    >>> maps = torch.tensor([[[[1.0, -3.0]], [[1.0, 1.0]]]])  # one image, two channels, 1x2 pixels
    >>> evidence(maps, (1, 2)), evidence(maps, (1, 2), "positive")
    (tensor([[[2., 4.]]], dtype=torch.float64), tensor([[[2., 0.]]], dtype=torch.float64))
    """
    if sign not in get_args(Sign):
        raise InputError(f"sign must be one of {', '.join(get_args(Sign))}; got {sign!r}")
    wide = check_maps(maps).detach().double()
    if sign == "magnitude":
        return at_size(reduce_channels(wide, "abs_sum").abs(), size)
    return at_size(reduce_channels(wide, "sum").clamp_min(0), size)


def check_maps(maps: Tensor) -> Tensor:
    """Return maps if they are (N, h, w) or (N, C, h, w) with at least one pixel; raise InputError if not."""
    if maps.ndim not in (3, 4) or 0 in maps.shape[1:]:
        raise InputError(f"maps must be (N, h, w) or (N, C, h, w), of one pixel at least; got {tuple(maps.shape)}")
    return maps


def at_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, h, w), resized bilinearly to `size` if they are smaller; raise InputError if they are larger."""
    height, width = maps.shape[1:]
    if (height, width) == tuple(size):
        return maps
    if height > size[0] or width > size[1]:
        raise InputError(f"maps must not be larger than the image; got {height}x{width} for {size[0]}x{size[1]}")
    return resize(maps, size) if len(maps) else maps.new_zeros((0, *size))
