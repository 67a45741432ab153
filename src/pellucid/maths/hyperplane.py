"""The nearest point of a hyperplane within the box [0, 1], in closed form."""

import torch
from torch import Tensor

from pellucid.protocols import Norm


def water_level(weights: Tensor, caps: Tensor, amount: Tensor) -> Tensor:
    """Return the smallest level with sum_i weights_i min(level, caps_i) = amount; the highest cap if it is too much.

    weights, caps (N, d) non-negative, amount (N,) non-negative -> (N,). The sum is piecewise linear and concave in the
    level, with its bends at the caps, so that sorting them finds the piece: O(d log d).
    """
    caps, order = caps.sort(dim=1)
    weights = weights.gather(1, order)
    filled = weights * caps
    below = filled.cumsum(1) - filled  # what lies in the vessels that are full at the level of caps_k
    open_ = weights.flip(1).cumsum(1).flip(1)  # the area of the others; summed from the end, so that none cancels
    held = below + open_ * caps
    piece = (held < amount[:, None]).sum(1, keepdim=True)
    last = piece.clamp(max=caps.shape[1] - 1)
    area = open_.gather(1, last)
    level = (amount[:, None] - below.gather(1, last)) / torch.where(area > 0, area, torch.ones_like(area))
    return torch.where(piece > last, caps[:, -1:], torch.minimum(level, caps.gather(1, last)).clamp(min=0))[:, 0]


def onto_hyperplane(norm: Norm, x: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """Return the smallest delta with value + <slope, delta> = 0 and x + delta in [0, 1].

    x (N, ...) in [0, 1], slope (N, ...), value (N,) -> (N, ...). Where no point of the box lies on the hyperplane,
    delta leads to the corner that comes closest to it. Pixels with slope 0 stay. For linf many deltas are equally
    small; the one returned moves every pixel by the same amount, or to the end of its range.

    With v = -sign(value) slope and room_i the way from x_i to the end of the range that v_i points to:
    linf: delta_i = sign(v_i) min(t, room_i); l2: delta_i = sign(v_i) min(t |v_i|, room_i); t by `water_level`.
    Source: Croce & Hein 2020, Minimally distorted adversarial examples, equation 4 (solved anew here).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    start, v, amount = x.flatten(1).to(wide), slope.flatten(1).to(wide), value.to(wide)
    if not v.shape[1]:
        return torch.zeros_like(x)
    v = torch.where(amount[:, None] > 0, -v, v)
    scale = v.abs().amax(1)  # squares of v could underflow or overflow
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    v, amount = v / scale[:, None], amount.abs() / scale
    size, sign = v.abs(), v.sign()
    room = torch.where(sign > 0, 1 - start, torch.where(sign < 0, start, torch.zeros_like(start))).clamp(min=0)
    if norm == "linf":
        delta = sign * torch.minimum(water_level(size, room, amount)[:, None], room)
    else:
        caps = torch.where(size > 0, room / torch.where(size > 0, size, torch.ones_like(size)), torch.zeros_like(size))
        caps = caps.clamp(max=torch.finfo(wide).max)
        level = water_level(size.square(), caps, amount)[:, None]
        delta = sign * torch.where(level >= caps, room, torch.minimum(level * size, room))
    return delta.to(x.dtype).view(x.shape)
