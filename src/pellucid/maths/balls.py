"""Balls around an image: project onto them, draw from them, find the steepest step in them.

Perturbations are (N, ...); eps is one number or one per example (N,). All norms are per example.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.protocols import Norm
from pellucid.rng import Stream


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


def _steepest_l2(g: Tensor) -> Tensor:
    unit, length, _ = _scaled(g)
    return unit / torch.where(length > 0, length, torch.ones_like(length))


_PROJECT: dict[Norm, Callable[..., Tensor]] = {"linf": _project_linf, "l2": _project_l2}
_RANDOM: dict[Norm, Callable[..., Tensor]] = {"linf": _random_linf, "l2": _random_l2}
_STEEPEST: dict[Norm, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": _steepest_l2}


def project(norm: Norm, delta: Tensor, eps: float | Tensor) -> Tensor:
    """Return the nearest point of the ball of radius eps: what lies inside is returned unchanged."""
    return _PROJECT[norm](delta, _column(eps, delta))


def random_start(norm: Norm, like: Tensor, eps: float | Tensor, stream: Stream) -> Tensor:
    """Return perturbations drawn uniformly from the ball, shape of `like`."""
    return _RANDOM[norm](like, _column(eps, like), stream)


def steepest(norm: Norm, g: Tensor) -> Tensor:
    """Return the unit step that raises a linear function with gradient g most; zero where g is zero."""
    return _STEEPEST[norm](g)
