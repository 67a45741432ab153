"""What every attack on labels shares: the doors, the target rule, and the per-example objective to climb."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Le
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import GradientError, InputError
from pellucid.guard import check_images, check_labels, check_logits, frozen, recording
from pellucid.maths.ascent import Ascent, Evaluate, Step
from pellucid.maths.losses import cross_entropy, margin, wide
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import NonNegative

Size = Annotated[NonNegative, Le(10_000)]  # of a perturbation of images in [0, 1]: more is no number in float16
Loss = Literal["cross_entropy", "margin"]
Labels = Literal["true", "predicted"]

_LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True)
class Setup:
    """What an attack works on: checked images and labels, target labels where it is targeted, random numbers."""

    x: Tensor
    y: Tensor
    target: Tensor | None
    rng: Stream


@contextlib.contextmanager
def attacking(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    rule: TargetRule | None,
    rng: Stream | None,
    mode: Mode = "eval",
) -> Iterator[Setup]:
    """Check the images and labels, freeze the model, choose targets; everything is restored afterwards."""
    x = check_images(x.detach() if isinstance(x, Tensor) else x)
    y = check_labels(y, len(x), single=True)
    rng = rng or Stream()
    with frozen(model, mode, seed=rng.child("dropout").seed), recording():
        if target is None and rule is not None and len(x):
            with torch.no_grad():
                logits = model(x)
            target = choose_target(rule, logits, check_labels(y, len(x), logits.shape[1]), rng)
        elif target is not None:
            target = check_labels(target, len(x), what="target labels", single=True)
        yield Setup(x, y, target, rng)


def choose_target(rule: TargetRule, logits: Tensor, y: Tensor, rng: Stream) -> Tensor:
    """Return target labels (N,), never the true one.

    next: (y + 1) mod K; random: uniform over the others; runner_up: the likeliest other class;
    least_likely: the least likely other class. Raises InputError for fewer than two classes.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise InputError("a targeted attack needs at least two classes")
    if rule == "next":
        return (y + 1) % classes
    if rule == "random":
        return (y + 1 + rng.child("target").integers(logits, classes - 1)) % classes
    others = logits.detach().scatter(1, y[:, None], -torch.inf if rule == "runner_up" else torch.inf)
    return others.argmax(1) if rule == "runner_up" else others.argmin(1)


def label_objective(
    model: nn.Module,
    setup: Setup,
    loss: Loss = "cross_entropy",
    labels: Labels = "true",
    tolerance: float | None = None,
) -> Evaluate:
    """Return evaluate(x', rows): the loss of the label, or minus that of the target; finished where it succeeded.

    labels="predicted" takes the model's own prediction on x' instead of the true label, ties sharing the mass,
    against label leaking (Kurakin et al. 2016b; Ross & Doshi-Velez 2018). tolerance caps the value: beyond it there
    is nothing left to climb.
    """
    checked = False

    def evaluate(point: Tensor, rows: Tensor) -> Step:
        nonlocal checked
        logits = check_logits(model(point), point)
        if not checked:
            check_labels(setup.y, len(setup.x), logits.shape[1])
            if setup.target is not None:
                check_labels(setup.target, len(setup.x), logits.shape[1], "target labels")
            checked = True
        predicted = logits.detach().argmax(1)
        if setup.target is not None:
            values, finished = -_LOSSES[loss](logits, setup.target[rows]), predicted == setup.target[rows]
        else:
            values, finished = _untargeted(logits, setup.y[rows], loss, labels), predicted != setup.y[rows]
        return Step(values if tolerance is None else values.clamp(max=tolerance), finished)

    return evaluate


def _untargeted(logits: Tensor, y: Tensor, loss: Loss, labels: Labels) -> Tensor:
    if labels == "true":
        return _LOSSES[loss](logits, y)
    logits = wide(logits)
    top = (logits.detach() == logits.detach().amax(1, keepdim=True)).to(logits.dtype)
    return functional.cross_entropy(logits, top / top.sum(1, keepdim=True), reduction="none")


def take_better(best: Ascent, run: Ascent, left: Tensor) -> Tensor:
    """Put what is better in another run on the rows `left` into `best`, in place; return the rows that changed.

    A success is better than a failure, a higher value better than a lower one.
    """
    better = (run.finished & ~best.finished[left]) | (
        (run.finished == best.finished[left]) & (run.values > best.values[left])
    )
    for kept, new in zip(best, run):
        kept[left[better]] = new[better]
    return left[better]


def plain(objective: Objective) -> Evaluate:
    """Return a caller's objective in the form the ascent loop takes: nobody is ever finished.

    Raises InputError if it does not give one value per row, GradientError if its values do not depend on the images.
    """

    def evaluate(point: Tensor, rows: Tensor) -> Step:
        values = objective(point, rows)
        if not isinstance(values, Tensor) or values.shape != (len(point),):
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(f"objective(x', rows) must return one value per row, ({len(point)},); got {got}")
        if point.requires_grad and torch.is_grad_enabled() and not values.requires_grad:
            raise GradientError("the objective does not depend on the images: there is no direction to climb")
        return Step(values, None)

    return evaluate
