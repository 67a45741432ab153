"""Moving pixels about: bilinear resampling by a flow field, and how rough a flow is.

A flow (N, 2, H, W) says, in pixels, from where each output pixel takes its value: channel 0 is the way to the
right (along W, u), channel 1 the way down (along H, v).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Border = Literal["edge", "zeros"]

SMOOTHING = 1e-8
"""Added under the root of `neighbour_loss`, in squared pixels, so that it has a gradient where the flow is even."""


def resample(x: Tensor, flow: Tensor, border: Border = "edge") -> Tensor:
    """Return x'(p) = x(p + flow(p)), bilinear between the four pixels around that place.

    x'_p = sum_q x_q max(0, 1 - |u_p + column_p - column_q|) max(0, 1 - |v_p + row_p - row_q|); x (N, C, H, W),
    flow (N, 2, H, W) in pixels, (u, v) = (right, down) -> (N, C, H, W) in the dtype of x. Zero flow returns x
    exactly, whole pixels shift it exactly. Places are those of pixel centres, which is what align_corners=True
    means in torch's grid_sample: u pixels are 2 u / (W - 1) of its units. Places outside the image take the
    nearest edge ("edge") or black ("zeros", which fades in over one pixel).
    Differentiable in the flow. At whole places, where interpolation has a kink and every attack starts, the derivative
    is the mean of those to either side; torch's, to the right and down, would often point the wrong way.
    Source: Xiao et al. 2018 (spatially transformed), equation 1.

    >>> x = torch.arange(6.0).view(1, 1, 2, 3)
    >>> resample(x, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)).tolist()
    [[[[1.0, 2.0, 2.0], [4.0, 5.0, 5.0]]]]
    """
    height, width = x.shape[2:]
    columns = flow[:, 0] + torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = flow[:, 1] + torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    found = _interpolate(x, columns, rows, border)
    if flow.requires_grad and bool(((columns == columns.floor()) | (rows == rows.floor())).any()):
        mirrored = _interpolate(x.flip((2, 3)), width - 1 - columns, height - 1 - rows, border)
        mean = (found + mirrored) / 2  # the same values up to rounding, and derivatives from either side
        found = found.detach() + (mean - mean.detach())  # to the last bit the values without derivatives
    return found


def _interpolate(x: Tensor, columns: Tensor, rows: Tensor, border: Border) -> Tensor:
    """Return x at places (N, H, W); derivatives at whole places are those to the right and down."""
    height, width = x.shape[2:]
    if border == "edge":  # not clamp from above, which would let a derivative through at the last pixel
        columns = torch.where(columns < width - 1, columns, width - 1).clamp(min=0)
        rows = torch.where(rows < height - 1, rows, height - 1).clamp(min=0)
    # On sides of a power of two the units of grid_sample round no whole pixel; the pixels added are black, as all
    # beyond them is.
    high, wide = (1 << max(0, side - 1).bit_length() for side in (height, width))
    padded = functional.pad(x.to(columns.dtype), (0, wide - width, 0, high - height))
    grid = torch.stack([(2 * columns + 1) / wide - 1, (2 * rows + 1) / high - 1], -1)
    return functional.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False).to(x.dtype)


def _jumps(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared lengths of the differences to the right (N, H, W - 1) and down (N, H - 1, W)."""
    right, down = flow[..., 1:] - flow[..., :-1], flow[..., 1:, :] - flow[..., :-1, :]
    return right.square().sum(1), down.square().sum(1)


def neighbour_loss(flow: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """Return sum_p sum_{q in N(p)} sqrt(|u_p - u_q|^2 + |v_p - v_q|^2 + smoothing) per image: (N, 2, H, W) -> (N,).

    N(p) are the up to four neighbours of pixel p inside the image, so that every pair counts twice.
    Source: Xiao et al. 2018 (spatially transformed), equation 4, where smoothing is 0.
    """
    right, down = _jumps(flow)
    return 2 * ((right + smoothing).sqrt().flatten(1).sum(1) + (down + smoothing).sqrt().flatten(1).sum(1))


def total_variation(flow: Tensor, smoothing: float = 1e-7) -> Tensor:
    """Return sum of sqrt(smoothing + |difference|^2) over neighbours below and to the right: (N, 2, H, W) -> (N,).

    Each pair counts once; with the flow in grid units (an image spans [-1, 1] from the centre of its first to that
    of its last pixel) it is the penalty in the code of Zhang & Zhu 2019, who divide its sum by the batch.
    """
    return neighbour_loss(flow, smoothing) / 2


def pixels(flow: Tensor) -> Tensor:
    """Turn a flow in grid units (align_corners=True: the image spans [-1, 1]) into pixels: (N, 2, H, W)."""
    height, width = flow.shape[2:]
    return flow * flow.new_tensor([(width - 1) / 2, (height - 1) / 2]).view(1, 2, 1, 1)
