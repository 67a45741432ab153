"""Balls around an image: project onto them, draw from them, find the steepest step in them.

Perturbations are (N, ...); eps is one number or one per example (N,). All norms are per example.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.protocols import Norm
from pellucid.rng import Stream

Ball = Literal["linf", "l2", "l1"]  # l1 is drawn from and filled, not projected onto


def _column(eps: float | Tensor, like: Tensor) -> Tensor:
    return eps.to(like).view(-1, *[1] * (like.ndim - 1)) if isinstance(eps, Tensor) else like.new_full((), eps)


def _scaled(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (u, |u|, s) with v = u s and the largest of u 1, as squares of v could underflow or overflow."""
    most = torch.finfo(v.dtype).max
    flat = v.flatten(1).clamp(-most, most)
    largest = flat.abs().amax(1, keepdim=True) if flat.shape[1] else flat.sum(1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    unit = flat / scale
    length: Tensor = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    column = (-1, *[1] * (v.ndim - 1))
    return unit.view(v.shape), length.view(column), scale.view(column)


def _length(v: Tensor) -> Tensor:
    _, length, scale = _scaled(v)
    return length * scale


def _project_linf(delta: Tensor, eps: Tensor) -> Tensor:
    return torch.clamp(delta, -eps, eps)


def _project_l2(delta: Tensor, eps: Tensor) -> Tensor:
    length = _length(delta)
    inside = length <= eps
    return torch.where(inside, delta, _steepest_l2(delta) * eps)


def _random_linf(like: Tensor, eps: Tensor, stream: Stream) -> Tensor:
    return (2 * stream.uniform(like) - 1) * eps


def _random_l2(like: Tensor, eps: Tensor, stream: Stream) -> Tensor:
    direction = stream.child("direction").normal(like)
    dimension = max(1, like[0].numel()) if len(like) else 1
    radius = stream.child("length").uniform(like, ()).pow(1 / dimension).view(-1, *[1] * (like.ndim - 1))
    return _steepest_l2(direction) * radius * eps


def _random_l1(like: Tensor, eps: Tensor, stream: Stream) -> Tensor:
    # Barthe, Guedon, Mendelson & Naor 2005, theorem 1: signed exponentials over the sum of one more of them.
    sizes = -torch.log1p(-stream.child("size").uniform(like))
    signs = torch.where(stream.child("sign").uniform(like) < 0.5, -1, 1)
    more = -torch.log1p(-stream.child("more").uniform(like, (1,)))
    total = (sizes.flatten(1).sum(1, keepdim=True) + more).view(-1, *[1] * (like.ndim - 1))
    return eps * signs * sizes / torch.where(total > 0, total, torch.ones_like(total))


def _steepest_l2(g: Tensor) -> Tensor:
    unit, length, _ = _scaled(g)
    return unit / torch.where(length > 0, length, torch.ones_like(length))


_PROJECT: dict[Norm, Callable[..., Tensor]] = {"linf": _project_linf, "l2": _project_l2}
_RANDOM: dict[Ball, Callable[..., Tensor]] = {"linf": _random_linf, "l2": _random_l2, "l1": _random_l1}
_STEEPEST: dict[Norm, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": _steepest_l2}


def project(norm: Norm, delta: Tensor, eps: float | Tensor) -> Tensor:
    """Return the nearest point of the ball of radius eps: what lies inside is returned unchanged."""
    return _PROJECT[norm](delta, _column(eps, delta))


def random_start(norm: Ball, like: Tensor, eps: float | Tensor, stream: Stream) -> Tensor:
    """Return perturbations drawn uniformly from the ball, shape of `like`."""
    return _RANDOM[norm](like, _column(eps, like), stream)


def steepest(norm: Norm, g: Tensor) -> Tensor:
    """Return the unit step that raises a linear function with gradient g most; zero where g is zero."""
    return _STEEPEST[norm](g)


def dual_norm(norm: Norm, w: Tensor) -> Tensor:
    """Return, per example, how much a unit step in the norm raises a linear function of slope w: (N, ...) -> (N,)."""
    flat = w.flatten(1).to(torch.promote_types(w.dtype, torch.float32))
    if norm == "linf":
        return flat.abs().sum(1)
    largest = flat.abs().amax(1, keepdim=True)  # squares of small slopes underflow
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    length: Tensor = torch.linalg.vector_norm(flat / scale, dim=1) * scale[:, 0]
    return length


def fill_l1(g: Tensor, eps: float | Tensor, room: Tensor) -> Tensor:
    """Return the d that maximises sum_i g_i d_i subject to ||d||_1 <= eps and |d_i| <= room_i: (N, ...) -> (N, ...).

    The solution of this linear programme gives the coordinates with the largest |g_i| all their room, one after the
    other, until eps is used up; the last one gets the rest. Where g is zero, d is zero. Of equal |g_i| the first
    in memory comes first.
    """
    flat, budget = g.flatten(1), _column(eps, g).reshape(-1, 1)
    size, order = flat.abs().sort(dim=1, descending=True, stable=True)
    most = torch.where(size > 0, room.flatten(1).gather(1, order), torch.zeros_like(size))
    wide = most.to(torch.promote_types(most.dtype, torch.float32))
    taken = torch.minimum((budget.to(wide) - (wide.cumsum(1) - wide)).clamp(min=0), wide).to(flat)
    return (torch.sign(flat) * torch.zeros_like(flat).scatter(1, order, taken)).view(g.shape)
