"""L-BFGS for a batch of problems of one shape, each with its own history, its own steps and its own end."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.errors import GradientError
from pellucid.maths.ascent import Evaluate
from pellucid.maths.passes import gradient

CURVATURE = 1e-10  # a pair with s'y up to this says nothing of the curvature and is not remembered
CHANGE = 1e-9  # a row ends when its step or what it gained is below this
FLAT = 1e-7  # a row ends when no part of its gradient is above this
DECREASE = 1e-4  # share of the decrease promised by the slope that the line search asks for (Armijo)
SHRINK = (0.1, 0.5)  # a step that did not decrease the value enough is shortened to between these shares of it
TRIES = 20  # of one step, then the line search gives the row up


class Descent(NamedTuple):
    """Where every row ended; and the point of least value among those that finished (the end, where none did)."""

    x: Tensor
    best: Tensor
    finished: Tensor


@dataclass
class History:
    """The last m pairs (s, y) of each of n rows: differences of points and of gradients, in rings."""

    points: Tensor  # (n, m, D)
    slopes: Tensor  # (n, m, D)
    inverse: Tensor  # (n, m): 1 / s'y
    scale: Tensor  # (n,): s'y / y'y of the last pair, the first guess of the inverse Hessian
    pairs: Tensor  # (n,): pairs written so far

    @classmethod
    def empty(cls, like: Tensor, size: int) -> "History":
        """Return room for `size` pairs of each row of `like` (n, D)."""
        n, length = like.shape
        ring, count = like.new_zeros((n, size, length)), torch.zeros(n, dtype=torch.int64, device=like.device)
        return cls(ring, ring.clone(), like.new_zeros((n, size)), like.new_ones(n), count)

    def take(self, keep: Tensor) -> "History":
        """Return the history of some rows."""
        return History(*(getattr(self, field.name)[keep] for field in fields(self)))

    def remember(self, rows: Tensor, point: Tensor, slope: Tensor) -> None:
        """Write a pair (n', D) of some rows over their oldest, where s'y > 1e-10."""
        product = (point * slope).sum(1)
        curved = product > CURVATURE
        rows, point, slope, product = rows[curved], point[curved], slope[curved], product[curved]
        place = self.pairs[rows] % self.points.shape[1]
        self.points[rows, place], self.slopes[rows, place] = point, slope
        self.inverse[rows, place], self.scale[rows] = 1 / product, product / slope.square().sum(1)
        self.pairs[rows] += 1

    def direction(self, rows: Tensor, slope: Tensor) -> Tensor:
        """Return -H g of some rows, gradients (n', D), by the two-loop recursion, a row's pairs its own.

        Source: Nocedal & Wright 2006, algorithm 7.4.
        """
        size, pairs = self.points.shape[1], self.pairs[rows]
        count = min(size, int(pairs.max())) if len(rows) else 0
        q, steps = -slope, []
        for age in range(1, count + 1):  # the newest pair first; where a row has none of that age its weight is 0
            place = (pairs - age) % size
            weight = torch.where(pairs >= age, self.inverse[rows, place], 0)
            s, y = self.points[rows, place], self.slopes[rows, place]
            alpha = (s * q).sum(1) * weight
            q = q - alpha[:, None] * y
            steps.append((s, y, weight, alpha))
        r = q * self.scale[rows, None]
        for s, y, weight, alpha in reversed(steps):
            r = r + (alpha - (y * r).sum(1) * weight)[:, None] * s
        return r


@dataclass
class _State:
    """The rows still at work: the last accepted points (n, D) and where they are going."""

    rows: Tensor
    base: Tensor
    value: Tensor
    slope: Tensor
    direction: Tensor
    promise: Tensor  # the slope along the direction, negative
    step: Tensor
    tries: Tensor  # of this step, in vain
    moves: Tensor  # points accepted so far, the start among them

    def take(self, keep: Tensor) -> "_State":
        """Return the state of some rows."""
        return _State(*(getattr(self, field.name)[keep] for field in fields(self)))

    def trial(self) -> Tensor:
        """Return the points (n, D) to evaluate next."""
        return self.base + self.step[:, None] * self.direction


def minimise(
    evaluate: Evaluate,
    start: Tensor,
    steps: int,
    *,
    step_size: float = 1.0,
    history: int = 10,
    line_search: bool = True,
    leave: bool = False,
) -> Descent:
    """Lower a function of each row of `start` (N, ...) by at most `steps` steps of L-BFGS.

    evaluate(x', rows) gives a value per row, which depends on that row only, and who finished. A row moves by t d,
    d = -H g from its own last `history` pairs; t is step_size, at first step_size min(1, 1 / |g|_1). line_search
    shortens t until the value falls by at least 1e-4 t |g'd| (backtracking, to the minimum of the parabola through
    what is known, within 0.1 t and 0.5 t); every evaluation tries one point of every row, so that a row that
    backtracks delays no other. Without it every point is accepted, and the last is not evaluated, as in
    torch.optim.LBFGS. A row ends when its gradient is at most 1e-7 everywhere, its step or gain below 1e-9, or 20
    trials were in vain; with `leave`, as soon as it finished.
    Raises GradientError where a gradient is not finite.
    """
    wide = torch.promote_types(start.dtype, torch.float32)
    x = start.detach().to(wide, copy=True)
    found = Descent(x, x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device))
    least = x.new_full((len(x),), torch.inf)
    flat = x.flatten(1)
    zeros = torch.zeros_like(least)
    rows = torch.arange(len(x), device=x.device)
    state = _State(
        rows=rows,
        base=flat.clone(),
        value=least.clone(),  # infinite, so that the start is accepted
        slope=torch.zeros_like(flat),
        direction=torch.zeros_like(flat),
        promise=zeros,
        step=zeros.clone(),
        tries=torch.zeros_like(rows),
        moves=torch.zeros_like(rows),
    )
    memory = History.empty(flat, min(history, steps))
    while len(state.rows):
        trial = state.trial()
        point = trial.view(-1, *x.shape[1:]).requires_grad_(True)
        with torch.enable_grad():
            values, success = evaluate(point, state.rows)
        slope, value = gradient(values, point).flatten(1), values.detach().to(wide)
        trial, point = trial.detach(), point.detach()

        finished = torch.zeros_like(value, dtype=torch.bool) if success is None else success
        better = finished & (value < least[state.rows])
        places = state.rows[better]
        found.best[places], least[places], found.finished[places] = point[better], value[better], True

        accepted = torch.ones_like(finished)
        if line_search:
            accepted = (value <= state.value + DECREASE * state.step * state.promise) | (state.moves == 0)
        if not bool(slope[accepted].isfinite().all()):
            raise GradientError("the gradient of the objective is not finite: there is no direction to descend")
        state.step = torch.where(accepted, state.step, _shorter(state, value))
        state.tries = torch.where(accepted, 0, state.tries + 1)
        going = state.tries < TRIES
        rows = torch.nonzero(accepted)[:, 0]
        going[rows] = _advance(state, memory, rows, trial[rows], value[rows], slope[rows], step_size)
        state.moves += accepted

        found.x[state.rows] = state.base.view(-1, *x.shape[1:])
        spent = state.moves > steps if line_search else state.moves == steps
        if not line_search:  # the last point is not evaluated
            last = spent & going
            found.x[state.rows[last]] = state.trial()[last].view(-1, *x.shape[1:])
        going &= ~spent
        if leave and bool(finished.any()):
            found.x[state.rows[finished]] = point[finished]
            going &= ~finished
        if not bool(going.all()):
            state, memory = state.take(going), memory.take(going)
    found.best[~found.finished] = found.x[~found.finished]
    return found


def _shorter(state: _State, value: Tensor) -> Tensor:
    """Return the steps at which the parabola through value and slope at the base and `value` here is least."""
    excess = value - state.value - state.step * state.promise
    share = -state.step * state.promise / (2 * excess)
    share = torch.where(share.isfinite(), share, 0).clamp(*SHRINK)  # infinite values: as short as is allowed
    return share * state.step


def _advance(
    state: _State, memory: History, rows: Tensor, point: Tensor, value: Tensor, slope: Tensor, step_size: float
) -> Tensor:
    """Move the base of some rows to the points they accepted and choose where to go next; say who goes on."""
    shift, first = point - state.base[rows], state.moves[rows] == 0
    gain = (value - state.value[rows]).abs()
    memory.remember(rows, shift, slope - state.slope[rows])
    way = memory.direction(rows, slope)
    promise = (way * slope).sum(1)
    going = (slope.abs().amax(1) > FLAT) & (promise <= -CHANGE)
    going &= ((shift.abs().amax(1) > CHANGE) & (gain >= CHANGE)) | first
    state.base[rows], state.value[rows], state.slope[rows] = point, value, slope
    state.direction[rows], state.promise[rows] = way, promise
    state.step[rows] = step_size * torch.where(first, (1 / slope.abs().sum(1)).clamp(max=1), 1)
    return going
