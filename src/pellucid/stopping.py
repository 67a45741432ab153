"""When to stop training, and which network of the run to keep: functions of what was logged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pellucid.errors import SpecError
from pellucid.spec import Count, NonNegative, Share, member, register

Figures = Mapping[str, float]
"""What one log of a run says: "step", and figures by name, such as "validation_accuracy"."""

Better = Literal["lower", "higher"]

_ROUNDING = 1e-9  # 0.8 - 0.6 is a fall by 0.2


@runtime_checkable
class Stop(Protocol):
    """A rule that ends training before its last step."""

    def reason(self, history: Sequence[Figures]) -> str | None:
        """Say to people why to stop after the last of these logs; None to go on."""
        ...

    def score(self, figures: Figures) -> float:
        """Return how much the network of this log is worth keeping; higher is better."""
        ...


StopField = Annotated[Stop, member("stop")]


def better(metric: str) -> Better:
    """Say which values of a figure are good, by its name: high accuracies, low losses and gradients.

    >>> better("validation_accuracy"), better("validation_cross_entropy")
    ('higher', 'lower')
    """
    return "higher" if metric.endswith("accuracy") else "lower"


def metric_value(metric: str, figures: Figures) -> float:
    """Return a logged figure; raise SpecError that names those there are if it is not logged."""
    if metric not in figures:
        hint = "; the training task logs attacked_... where it is given an attack to `watch`"
        raise SpecError(
            f"{metric!r} is not among the figures that training logs here: {', '.join(figures) or 'none'}"
            + (hint if metric.startswith("attacked_") else "")
        )
    return figures[metric]


def metric_score(metric: str, figures: Figures, good: Better | None = None) -> float:
    """Return a logged figure so that higher is better: with its sign turned where low values are good.

    What is good goes by the name (see `better`) unless said. NaN is the worst score, minus infinity.
    Raises SpecError if the figure is not logged.
    """
    value = metric_value(metric, figures)
    if math.isnan(value):
        return -math.inf
    return value if (good or better(metric)) == "higher" else -value


@register("stop", "target_accuracy")
@dataclass(frozen=True, kw_only=True)
class TargetAccuracy:
    """Stop as soon as a given accuracy is reached, and keep the log nearest to it: an underfitting network.

    score = -|metric - accuracy|; `accuracy` and the figure are shares in [0, 1]. Instead of `accuracy`, `like` may be a
    task that trains another network: the training task reads there how accurate that one is, by the same figure.
    Raises SpecError if neither or both are given, and if the figure is no accuracy, or not logged.

    Source: the underfitting networks of Zhang & Zhu 2019, as accurate as the adversarially trained ones.
    Deviations: the paper does not say how training was cut short; this is early stopping.
    """

    accuracy: Share | None = None
    metric: str = "validation_accuracy"
    like: Annotated[Any, member("task")] | None = None

    def check(self) -> None:
        """Refuse two targets or none, and a figure that is no accuracy."""
        if (self.accuracy is None) == (self.like is None):
            raise SpecError("stop target_accuracy needs accuracy, or a training to be like, and not both")
        if better(self.metric) != "higher":
            raise SpecError(f"target_accuracy needs a metric whose name ends in 'accuracy', not {self.metric!r}")

    def reason(self, history: Sequence[Figures]) -> str | None:
        """Say which log reached the target."""
        target = self._target()
        for figures in history:
            value = metric_value(self.metric, figures)
            if value >= target:
                return f"{self.metric} is {value:.4g}, the target {target:.4g} is reached{_at(figures)}"
        return None

    def score(self, figures: Figures) -> float:
        """Return how near this log is to the target, at most 0."""
        value = metric_value(self.metric, figures)
        return -math.inf if math.isnan(value) else -abs(value - self._target())

    def _target(self) -> float:
        if self.accuracy is None:
            raise SpecError("how accurate the other network is, the training task finds out; here give accuracy")
        return self.accuracy


@register("stop", "patience")
@dataclass(frozen=True, kw_only=True)
class Patience:
    """Stop when a figure has not become better for `logs` logs in a row.

    Better means by more than `tolerance`, in the figure's own units, than the best so far. Which direction is
    better goes by the figure's name unless `better` says. Raises SpecError if the figure is not logged.

    Source: Prechelt 1998, early stopping by a validation set.
    Deviations: patience is counted in logs, not by one of that paper's criteria.
    """

    metric: str = "validation_cross_entropy"
    logs: Count = 10
    better: Better | None = None
    tolerance: NonNegative = 0.0

    def reason(self, history: Sequence[Figures]) -> str | None:
        """Say since when there was nothing better."""
        best, at = -math.inf, -1
        for place, figures in enumerate(history):
            score = self.score(figures)
            if score > best + self.tolerance:
                best, at = score, place
        if len(history) - 1 - at < self.logs:
            return None
        since = f"{history[at][self.metric]:.4g}{_at(history[at])}" if at >= 0 else "the beginning"
        return f"{self.metric} has not become better in {self.logs} logs, since {since}"

    def score(self, figures: Figures) -> float:
        """Return the figure, its sign turned where low is good."""
        return metric_score(self.metric, figures, self.better)


@register("stop", "sudden_overfitting")
@dataclass(frozen=True, kw_only=True)
class SuddenOverfitting:
    """Stop when accuracy under attack on training images falls off a cliff, and keep the best log before it.

    Stops once max over the logs so far - the last >= drop; `drop` and the figure are shares in [0, 1].
    Raises SpecError if the figure is no accuracy, or not logged.

    FGSM training may lose within an epoch all robustness that it had, while accuracy under FGSM rises to 1; accuracy
    under PGD shows it on few training images. The figure is to be of an iterated attack: training's own sees nothing.

    Source: Wong, Rice & Kolter 2020, on catastrophic overfitting. The text asks for early stopping by PGD accuracy on
    training data; the authors' code attacks the epoch's first training batch by 5 steps of PGD after every epoch, and
    stops when accuracy is more than 0.2 below that of the epoch before.
    Deviations: the fall is from the best log so far, not from the one before, so that it is also seen when it takes
    several logs; a fall by exactly `drop` counts; of the logs the best is kept, theirs is the last before the fall.
    """

    drop: Share = 0.2
    metric: str = "attacked_training_accuracy"

    def check(self) -> None:
        """Refuse a figure that is no accuracy."""
        if better(self.metric) != "higher":
            raise SpecError(f"sudden_overfitting needs a metric whose name ends in 'accuracy', not {self.metric!r}")

    def reason(self, history: Sequence[Figures]) -> str | None:
        """Say how far the accuracy fell."""
        best: Figures | None = None
        for figures in history:
            if best is None or self.score(figures) > self.score(best):
                best = figures
            top, now = self.score(best), self.score(figures)
            if top - now >= self.drop - _ROUNDING and top > now:
                return f"{self.metric} fell from {top:.4g}{_at(best)} to {now:.4g}{_at(figures)}"
        return None

    def score(self, figures: Figures) -> float:
        """Return the accuracy under attack."""
        return metric_score(self.metric, figures)


def _at(figures: Figures) -> str:
    return f" at step {figures['step']:.0f}" if "step" in figures else ""
