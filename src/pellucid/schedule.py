"""Numbers that move during training: closed forms of where the run stands, so that a resumed run is exact."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Protocol, runtime_checkable

from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.spec import NonNegative, Positive, Real, Reals, Share, member, register

Unit = Literal["share", "steps"]
"""What points of a run are given in: the share of it that is done, in [0, 1], or the steps taken."""


def _place(ctx: Context, unit: Unit) -> float:
    return ctx.progress if unit == "share" else float(ctx.step)


@register("ramp", "linear")
@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that goes linearly from `start` to `stop` between two points of the run, constant outside.

    value = start + (stop - start) * clip((t - begin) / (until - begin), 0, 1)

    t is the share of the run that is done, in [0, 1], or (unit="steps") the number of steps taken before this one.
    Raises SpecError where it ends before it begins, or a share is above 1.

    Source: the epsilon ramps of Boopathy et al. 2020 (authors' code): on MNIST 0 for 2,000 steps, full at 10,000.
    Deviations: none.

    >>> ramp = Ramp(start=0.0, stop=0.3, begin=0.2, until=0.6)
    >>> [round(ramp(Context(progress=p)), 3) for p in (0.0, 0.2, 0.4, 1.0)]
    [0.0, 0.0, 0.15, 0.3]
    >>> ramp = Ramp(start=0.0, stop=0.3, begin=2000, until=10000, unit="steps")
    >>> [round(ramp(Context(step=s)), 3) for s in (0, 2000, 6000, 20000)]
    [0.0, 0.0, 0.15, 0.3]
    """

    start: Real
    stop: Real
    begin: NonNegative = 0.0
    until: NonNegative = 1.0
    unit: Unit = "share"

    def check(self) -> None:
        """Refuse a ramp that ends before it begins, and shares above 1."""
        if self.until < self.begin:
            raise SpecError(f"a ramp must end after it begins; begin={self.begin}, until={self.until}")
        if self.unit == "share" and self.until > 1:
            raise SpecError(
                f"a ramp's begin and until are shares of the run, in [0, 1], or have unit=steps, not {self.until}"
            )

    def __call__(self, ctx: Context) -> float:
        """Return the value at this point of the run."""
        t = _place(ctx, self.unit)
        if t >= self.until:
            return self.stop
        if t <= self.begin:
            return self.start
        return self.start + (self.stop - self.start) * (t - self.begin) / (self.until - self.begin)


@runtime_checkable
class Schedule(Protocol):
    """A learning-rate schedule: what the optimiser's rate is multiplied by at each point of the run."""

    def factor(self, ctx: Context) -> float:
        """Return the factor of this step's learning rate, at least 0."""
        ...


ScheduleField = Annotated[Schedule, member("schedule")]


@register("schedule", "step_decay")
@dataclass(frozen=True, kw_only=True)
class StepDecay:
    """A learning rate that changes at given points of the run.

    factor = 1 before at[0], factors[i] from at[i] on

    The points are shares of the run in [0, 1), or (unit="steps") steps taken. Factors are of the optimiser's
    rate, not of the one before. Raises SpecError unless the points ascend, each with one factor, at least 0.

    Source: the rates of Boopathy et al. 2020 (1e-3, 1e-4 after 40,000 steps, 1e-5 after 60,000).
    Deviations: none.

    >>> drops = StepDecay(at=(40000, 60000), factors=(0.1, 0.01), unit="steps")
    >>> [drops.factor(Context(step=s)) for s in (39999, 40000, 60000)]
    [1.0, 0.1, 0.01]
    """

    at: Reals
    factors: Reals
    unit: Unit = "share"

    def check(self) -> None:
        """Refuse points that do not ascend, and any that is without its factor."""
        if not self.at or len(self.at) != len(self.factors):
            raise SpecError(f"a step decay needs one of factors for each of at; at={self.at}, factors={self.factors}")
        if self.at[0] < 0 or any(a >= b for a, b in pairwise(self.at)):
            raise SpecError(f"the points at which a step decay changes must ascend from 0 on; at={self.at}")
        if self.unit == "share" and self.at[-1] >= 1:
            raise SpecError(f"at={self.at} are shares of the run, in [0, 1), or have unit=steps")
        if min(self.factors) < 0:
            raise SpecError(f"factors of a learning rate are at least 0; factors={self.factors}")

    def factor(self, ctx: Context) -> float:
        """Return the factor of the last point that was reached."""
        return (1.0, *self.factors)[bisect_right(self.at, _place(ctx, self.unit))]


@register("schedule", "cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine:
    """A learning rate that rises linearly for a while, then falls along half a cosine.

    factor = t / warmup                                                                    for t < warmup
    factor = floor + (1 - floor) (1 + cos(pi (t - warmup) / (1 - warmup))) / 2             from there on

    t is the share of the run that is done, in [0, 1]; `floor` is the factor that the end of the run would have.

    Source: Loshchilov & Hutter 2017, eq. 5 (without restarts); the linear warm-up of Goyal et al. 2017, section 2.2.
    Deviations: none; the first step of a warm-up is taken at rate 0, and the last step of the run is one before t = 1.

    >>> [round(Cosine(warmup=0.2).factor(Context(progress=p)), 3) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    warmup: Share = 0.0
    floor: Share = 0.0

    def factor(self, ctx: Context) -> float:
        """Return the factor at this point of the run."""
        if ctx.progress < self.warmup:
            return ctx.progress / self.warmup
        return _cosine(1.0, self.floor, ctx.progress - self.warmup, 1 - self.warmup)


@register("schedule", "one_cycle")
@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """A learning rate that rises from a small one to the optimiser's own, then falls to a far smaller one.

    Half a cosine each: from 1 / start to 1 at share `warm` of the run, from there to 1 / (start final) at its end.
    Of T steps (the first is 0) the peak is at step warm T - 1 and the end at step T - 1.

    Source: Smith & Topin 2019, as in torch.optim.lr_scheduler.OneCycleLR.
    Deviations: none from torch; momentum stays as it is (torch's cycle_momentum=False).

    >>> [round(OneCycle().factor(Context(progress=s / 100, step=s)), 5) for s in (0, 29, 64, 99)]
    [0.04, 1.0, 0.5, 0.0]
    """

    warm: Share = 0.3
    start: Positive = 25.0
    final: Positive = 1e4

    def factor(self, ctx: Context) -> float:
        """Return the factor at this point of the run."""
        step = ctx.progress / ctx.step if ctx.step else 0.0  # the share of the run that one step is
        peak, end = max(self.warm - step, 0.0), 1 - step
        if ctx.progress < peak:
            return _cosine(1 / self.start, 1.0, ctx.progress, peak)
        return _cosine(1.0, 1 / (self.start * self.final), ctx.progress - peak, end - peak)


def _cosine(first: float, last: float, done: float, length: float) -> float:
    """Return the value between `first` and `last` along half a cosine."""
    share = min(done / length, 1.0) if length > 0 else 0.0
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
