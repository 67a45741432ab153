"""Claims of papers: how a paired difference decides one, and how its evidence is written.

A rule is written before what it judges is measured. An interval that contains the deciding value means "cannot be
decided".
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

from torch import Tensor

from pellucid.metrics import Interval, bootstrap_mean

Verdict = Literal["holds", "does not hold", "cannot be decided"]

_RESAMPLES = 2000


class ClaimRow(TypedDict):
    """One judged claim, as it is stored."""

    name: str
    statement: str
    source: str
    rule: str
    verdict: Verdict
    evidence: str
    power: NotRequired[str]  # where the verdict is open: how much more would decide it


def paired_gap(a: Tensor, b: Tensor, confidence: float = 0.95) -> Interval:
    """Return mean(a - b) with a paired bootstrap interval; a, b (N,) or (E, N), averaged over E first."""
    difference = a.double() - b.double()
    return bootstrap_mean(difference.mean(0) if difference.ndim == 2 else difference, confidence, resamples=_RESAMPLES)


def paired_ratio(a: Tensor, b: Tensor, confidence: float = 0.95) -> Interval:
    """Return R = mean(a) / mean(b) of paired values (N,), with the bootstrap interval of R + (a - R b) / mean(b).

    >>> import torch
    >>> paired_ratio(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    Interval(value=2.0, low=2.0, high=2.0)
    """
    a, b = a.double(), b.double()
    value = a.mean() / b.mean()
    return bootstrap_mean(value + (a - value * b) / b.mean(), confidence, resamples=_RESAMPLES)


def above(found: Interval, limit: float = 0.0) -> Verdict:
    """Judge whether a number is above a limit."""
    return "holds" if found.low > limit else "does not hold" if found.high < limit else "cannot be decided"


def below(found: Interval, limit: float = 0.0) -> Verdict:
    """Judge whether a number is below a limit."""
    return "holds" if found.high < limit else "does not hold" if found.low > limit else "cannot be decided"


def needed(found: Interval, count: int, limit: float = 0.0) -> int | None:
    """Return how many examples would decide on which side of a limit a mean lies, if it stays where it is.

    n (w / d)^2: w the half of the interval that reaches over the limit, d the distance to it; a half-width falls like
    1 / sqrt(n). None where the mean lies on the limit.

    >>> needed(Interval(0.01, -0.01, 0.03), 100), needed(Interval(0.0, -0.1, 0.1), 100)
    (401, None)
    """
    distance = abs(found.value - limit)
    width = found.value - found.low if found.value > limit else found.high - found.value
    return None if distance == 0 else math.floor(count * (width / distance) ** 2) + 1


def to_decide(found: Mapping[Any, Interval], count: int, limit: float = 0.0, what: str = "images") -> str:
    """Say how many examples would decide each number that is still open.

    >>> to_decide({"at .3": Interval(0.01, -0.01, 0.03), "at .4": Interval(0.5, 0.4, 0.6)}, 100)
    'if it stays where it is, 401 images for 100 would decide at .3'
    """
    said = []
    for name, interval in found.items():
        if above(interval, limit) == "cannot be decided":
            more = needed(interval, count, limit)
            said.append(
                f"no number of {what} would decide {name}"
                if more is None
                else f"{more:,} {what} for {count:,} would decide {name}"
            )
    return "if it stays where it is, " + ", ".join(said) if said else ""


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on several statements together.

    >>> all_of(["holds", "cannot be decided"]), all_of(["holds", "does not hold", "cannot be decided"])
    ('cannot be decided', 'does not hold')
    """
    found = set(verdicts)
    order: tuple[Verdict, ...] = ("does not hold", "cannot be decided")
    return next((verdict for verdict in order if verdict in found), "holds")


def plain(found: Interval, sign: bool = True) -> str:
    """Write a number with its interval, three digits after the point.

    >>> plain(Interval(0.0123, -0.001, 0.5))
    '+0.012 [-0.001, +0.500]'
    """
    value, low, high = (f"{v:+.3f}" if sign else f"{v:.3f}" for v in found)
    return f"{value} [{low}, {high}]"


def points(found: Interval) -> str:
    """Write a difference of accuracies in points.

    >>> points(Interval(0.0123, -0.001, 0.5))
    '+1.2 points [-0.1, +50.0]'
    """
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def listed(found: Mapping[Any, Interval], said: Callable[[Interval], str] = points, form: str = "{} {}") -> str:
    """Write several numbers, each with its name."""
    return ", ".join(form.format(name, said(interval)) for name, interval in found.items())
