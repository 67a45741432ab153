"""The loop under every iterative attack: climb, project, keep the last or the best, let finished samples leave."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pellucid.errors import GradientError
from pellucid.maths.passes import gradient


class Step(NamedTuple):
    """What one evaluation of an objective tells: a value per row and, where success is defined, who succeeded."""

    values: Tensor
    finished: Tensor | None = None


class Ascent(NamedTuple):
    """Where an ascent ended: the points (N, ...) and, where they were evaluated, their values and who succeeded."""

    x: Tensor
    values: Tensor
    finished: Tensor


def nothing(x: Tensor) -> Ascent:
    """Return the outcome of no ascent at all: the points themselves, copied, worth less than any other."""
    wide = torch.promote_types(x.dtype, torch.float32)
    values = torch.full((len(x),), -torch.inf, dtype=wide, device=x.device)
    return Ascent(x.clone(), values, torch.zeros(len(x), dtype=torch.bool, device=x.device))


Evaluate = Callable[[Tensor, Tensor], Step]
Move = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def ascend(
    evaluate: Evaluate,
    start: Tensor,
    move: Move,
    steps: int,
    *,
    keep: Literal["last", "best"] = "last",
    leave: bool = False,
    judge: bool = False,
) -> Ascent:
    """Climb `steps` times from `start` (N, ...) and return the points reached.

    evaluate(x', rows) gives the objective of the rows that are still in the batch; move(x', gradient, values, rows)
    the next iterate, inside the ball and the box (values are those of x', for attacks that adapt their step).
    leave: rows that finished leave with the iterate at which they did, at no pass of their own: the forward of
    a step is the check of the step before. keep="best" returns the iterate with the highest value. judge
    evaluates the last iterate too (one forward more, as keep="best" needs anyway), so restarts can be compared.
    """
    rows = torch.arange(len(start), device=start.device)
    point = start.detach()
    kept = nothing(point)
    for number in range(steps + (judge or keep == "best")):
        if not len(rows):
            break
        moving = number < steps
        point = point.detach().requires_grad_(moving)
        with torch.set_grad_enabled(moving):
            value, success = evaluate(point, rows)
        slope = gradient(value, point) if moving else None
        if slope is not None and bool(slope.isnan().any()):
            raise GradientError("the gradient of the objective contains NaN: there is no direction to climb")
        point, value = point.detach(), value.detach().to(kept.values.dtype)
        finished = torch.zeros_like(rows, dtype=torch.bool) if success is None else success
        going = leave and bool(finished.any())
        if keep == "best":
            record = (value > kept.values[rows]) | (finished & leave)
        else:  # the last iterate is recorded when a row leaves, and at the end
            record = torch.ones_like(finished) if not moving else finished & leave
        if going or keep == "best" or not moving:
            kept.x[rows[record]], kept.values[rows[record]] = point[record], value[record]
            kept.finished[rows[record]] = finished[record]
        if going:
            rows, point, value = rows[~finished], point[~finished], value[~finished]
            slope = None if slope is None else slope[~finished]
        if slope is not None and len(rows):
            with torch.no_grad():
                point = move(point, slope, value, rows)
    if keep == "last" and len(rows):
        kept.x[rows] = point
    return kept
