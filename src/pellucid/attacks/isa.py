"""Interpretability sneaking attack: fool the classifier and leave the explanation as it was."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.attacks.objective import Setup, Size, attacking
from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError
from pellucid.guard import check_labels, check_logits
from pellucid.maths.ascent import Step, ascend
from pellucid.maths.balls import project
from pellucid.maths.discrepancy import Compared, Order, compared_classes, discrepancy
from pellucid.maths.losses import margin
from pellucid.maths.notes import note
from pellucid.protocols import InterpreterField, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, register

_FIRST, _FACTOR = 1.0, 10.0  # lambda of the first round, and its growth until a round succeeded and one failed
_FIRST_G, _MOST_G = 5e-5, 1.0
_SHARE, _SLOPE = 0.2, 1000.0  # the authors' step: 0.2 eps clip(1000 gradient, -1, 1)

Direction = Callable[[Tensor], Tensor]


def _number(value: Any) -> Any:
    """Read "1" and "2" as numbers, as they come from the command line."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


class Sneaked(NamedTuple):
    """What a search found: images, which succeeded, their discrepancy, and the weight (lambda, or g) that gave them.

    x (N, C, H, W), the others (N,). discrepancy is that of the returned image, in the units of its form; weight is
    NaN where no round succeeded.
    """

    x: Tensor
    succeeded: Tensor
    discrepancy: Tensor
    weight: Tensor
    target: Tensor


class MinimumEps(NamedTuple):
    """The smallest radius (N,) at which a short attack reached the target, NaN where none did, and its images."""

    eps: Tensor
    x: Tensor


@register("attack", "isa")
@dataclass(frozen=True, kw_only=True)
class ISA:
    """Reach a target label while the saliency maps move as little as possible.

    min_{||delta||_inf <= eps} lambda CW(delta) + D(x, x + delta),
    CW = max(max_{j != t} f_j(x') - f_t(x'), -tau), lambda by bisection the smallest that still succeeds (CW = -tau);
    D is the discrepancy of the maps of one class {y}, two {y, t} or all, in the l1 or l2 norm (p = 1 or 2; see
    `maths.discrepancy`); f are logits.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' with |x' - x| <= eps (linf, in units of [0, 1]). interpreter is
    any whose maps can be differentiated; on piecewise linear networks the slope of gradient maps is zero almost
    everywhere, and D then only chooses among the iterates.
    Each of the `search_steps` rounds goes from x anew in `steps` projected steps (1 - k/steps) step_size
    sign(gradient), k = 0, 1, ...; step_size None means 0.2 eps. lambda starts at 1 and grows or shrinks tenfold
    until its bracket has two ends, which is then halved on a log scale, per image. Returned is the successful
    iterate of lowest discrepancy (where minimisation is exact, that of the smallest lambda), and for images
    without success the one with the highest margin of the target.
    form="code" is the authors' equivalent CW + g D: raw maps (sum over positions), squared norm for p = 2,
    steps step_size clip(1000 gradient, -1, 1), g from 5e-5 in [0, 1] (success: min(2 g, midpoint); failure:
    midpoint), success f_t >= f_y, and the last iterate of the largest successful g, or of the last round.
    stop_when_fooled lets an image leave with the first iterate classified as the target, whatever its maps.
    `sneak` takes a radius per image and tells what was reached; notes are "succeeded", "discrepancy", "weight".
    Raises InputError for a network that lacks what the interpreter needs, and for `maximise`.
    Source: Boopathy et al. 2020, equation 6 and section 3; steps, rounds and form="code" from the authors' code.
    Deviations: the paper prints no rule for lambda, the steps or the choice among iterates; steps that shrink are
    ours (steps of one size circle around the minimum).
    """

    interpreter: InterpreterField
    eps: Size
    classes: Compared = "two"
    p: Annotated[Order, BeforeValidator(_number)] = 1
    form: Literal["paper", "code"] = "paper"
    tau: NonNegative = 0.1
    step_size: Size | None = None
    steps: Count = 10
    search_steps: Count = 10
    target: TargetRule = "random"

    norm = "linf"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the adversarial images."""
        found = self.sneak(model, x, y, target=target, rng=rng, stop_when_fooled=stop_when_fooled)
        for name in ("succeeded", "discrepancy", "weight"):
            note(name, getattr(found, name))
        return found.x

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: labels and maps come from a network, not from a number per image."""
        raise InputError("attack isa weighs labels against maps of a network: it cannot climb another objective")

    def sneak(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: Tensor | None = None,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Sneaked:
        """Return images and what was reached; eps (N,), where given, is the radius of each image instead of `eps`."""
        with attacking(model, x, y, target, self.target, rng) as setup:
            radius = _radii(self.eps if eps is None else eps, setup.x)
            if not len(setup.x):
                wide = radius.new_zeros(0)
                return Sneaked(setup.x.clone(), wide > 0, wide, wide, setup.y)
            assert setup.target is not None
            logits = _clean(model, setup)
            classes = compared_classes(self.classes, setup.y, setup.target, logits.shape[1])
            search = _Search(self, sharing(model), setup, setup.target, radius, classes, stop_when_fooled)
            search.before = self.interpreter.maps(model, setup.x, classes).detach()
            return search.run()


class _Search:
    """The state of one bisection: per image a weight, its bracket, and the iterate to be returned."""

    before: Tensor

    def __init__(
        self, attack: ISA, model: nn.Module, setup: Setup, target: Tensor, eps: Tensor, classes: Tensor, leave: bool
    ) -> None:
        self.attack, self.model, self.setup, self.target, self.classes = attack, model, setup, target, classes
        self.eps, self.leave, self.paper = eps, leave, attack.form == "paper"
        self.step = _SHARE * eps if attack.step_size is None else torch.full_like(eps, attack.step_size)
        self.x = setup.x.clone()
        self.succeeded = torch.zeros_like(target, dtype=torch.bool)
        self.discrepancy = torch.full_like(eps, torch.nan)
        self.gap = torch.full_like(eps, torch.inf)  # margin against the target of what would be returned
        self.weight = torch.full_like(eps, _FIRST if self.paper else _FIRST_G)
        self.best = torch.full_like(eps, torch.nan)
        self.low, self.high = torch.zeros_like(eps), torch.full_like(eps, torch.inf if self.paper else _MOST_G)

    def run(self) -> Sneaked:
        left = torch.arange(len(self.x), device=self.x.device)
        for _ in range(self.attack.search_steps):
            done, gone = self._round(left)
            self._narrow(left, done)
            left = left[~gone]
            if not len(left):
                break
        return Sneaked(self.x, self.succeeded, self.discrepancy, self.best, self.target)

    def _round(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """Attack the images `left` from anew; return which succeeded with this weight, and which leave for good."""
        done, number = torch.zeros_like(left, dtype=torch.bool), 0

        def evaluate(point: Tensor, rows: Tensor) -> Step:
            nonlocal number
            logits = check_logits(self.model(point), point)
            images = left[rows]
            gap = margin(logits, self.target[images])
            after = self.attack.interpreter.maps(
                self.model, point, self.classes[images], create_graph=point.requires_grad
            )
            moved = self._distance(self.before[images], after)
            fooled = logits.detach().argmax(1) == self.target[images]
            own = logits.detach().gather(1, self.setup.y[images, None])[:, 0]
            reached = logits.detach().gather(1, self.target[images, None])[:, 0] >= own
            last, number = number == self.attack.steps, number + 1
            success = gap.detach() <= -self.attack.tau if self.paper else reached & last
            if self.paper or last:
                done[rows] |= success
                self._record(images, point.detach(), gap.detach(), moved.detach(), success)
            if self.leave and bool(fooled.any()):
                self._take(images[fooled], point.detach()[fooled], gap[fooled], moved[fooled])
                self.succeeded[images[fooled]] = True
            attack_loss = gap.clamp(min=-self.attack.tau)
            weight = self.weight[images].to(gap)
            if self.paper:  # both terms divided by 1 + lambda, for floats that overflow: signs stay
                values = weight / (1 + weight) * attack_loss + moved / (1 + weight)
            else:
                values = attack_loss + weight * moved
            return Step(-values, fooled)

        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            images = left[rows]
            shrink = 1 - (number - 1) / self.attack.steps  # steps of one size would circle around the minimum
            direction = shrink * torch.sign(slope) if self.paper else _clipped(slope)
            return _stepped(self.setup.x[images], point, self.step[images], direction, self.eps[images])

        run = ascend(evaluate, self.setup.x[left], move, self.attack.steps, leave=self.leave, judge=True)
        return done, run.finished if self.leave else torch.zeros_like(done)

    def _distance(self, before: Tensor, after: Tensor) -> Tensor:
        if self.paper:
            return discrepancy(before, after, self.attack.p)
        squared = self.attack.p == 2
        return discrepancy(before, after, self.attack.p, positions="sum", squared=squared)

    def _record(self, images: Tensor, point: Tensor, gap: Tensor, moved: Tensor, success: Tensor) -> None:
        """Keep an iterate where it is a better answer than the one held; the authors keep the last of its kind."""
        held = self.succeeded[images]
        if self.paper:
            closer = torch.where(success, moved < self.discrepancy[images], gap < self.gap[images])
            better = (success & ~held) | ((success == held) & closer)
        else:
            better = success | ~held
        self._take(images[better], point[better], gap[better], moved[better])
        self.succeeded[images] |= success

    def _take(self, images: Tensor, point: Tensor, gap: Tensor, moved: Tensor) -> None:
        self.x[images], self.gap[images] = point, gap.detach().to(self.gap)
        self.discrepancy[images] = moved.detach().to(self.discrepancy)

    def _narrow(self, left: Tensor, done: Tensor) -> None:
        """Halve the bracket: success asks for a smaller lambda, or for a larger g."""
        weight = self.weight[left]
        self.best[left[done]] = weight[done]
        low, high = self.low[left], self.high[left]
        up = ~done if self.paper else done
        low, high = torch.where(up, weight, low), torch.where(up, high, weight)
        if self.paper:
            middle = (low * high).sqrt()
            middle = torch.where(high.isinf(), weight * _FACTOR, torch.where(low == 0, weight / _FACTOR, middle))
        else:
            middle = (low + high) / 2
            middle = torch.where(done, torch.minimum(2 * weight, middle), middle)
        self.low[left], self.high[left], self.weight[left] = low, high, middle


def minimum_eps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor,
    *,
    rounds: int = 10,
    steps: int = 10,
    first: float = 0.05,
    tau: float = 0.1,
) -> MinimumEps:
    """Return each image's smallest linf radius at which a short targeted attack succeeds (f_t >= f_y).

    Bisection on eps in [0, 1] from `first`: success -> midpoint, failure -> min(2 eps, midpoint); each round is a
    fresh attack from x with steps 0.2 eps clip(1000 gradient, -1, 1) on max(max_{j != t} f_j - f_t, -tau).

    x (N, C, H, W) in [0, 1], y and target (N,) -> eps (N,), float32 at least, and the images of that radius (clean
    ones where eps is NaN: no round succeeded). An image that already prefers the target gets a tiny radius; the
    authors leave it out. Figure 2 gives ISA multiples of this radius: `ISA.sneak(..., eps=2 * found.eps)`.
    Raises InputError for images outside [0, 1], labels out of range, and fewer than one round or step.
    Source: Boopathy et al. 2020, Figure 2 and authors' code. Deviations: none known.
    """
    if rounds < 1 or steps < 1:
        raise InputError(f"rounds and steps must be at least 1; got {rounds} and {steps}")
    with attacking(model, x, y, target, None, None) as setup:
        assert setup.target is not None
        eps = _radii(first, setup.x)
        found, images = torch.full_like(eps, torch.nan), setup.x.clone()
        if not len(eps):
            return MinimumEps(found, images)
        _clean(model, setup)
        low, high = torch.zeros_like(eps), torch.ones_like(eps)
        labels, aims = setup.y, setup.target

        def evaluate(point: Tensor, rows: Tensor) -> Step:
            logits = check_logits(model(point), point)
            own, other = (logits.detach().gather(1, label[rows, None])[:, 0] for label in (labels, aims))
            return Step(-margin(logits, aims[rows]).clamp(min=-tau), other >= own)

        for _ in range(rounds):
            radius = eps  # of this round, also for the function below

            def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor, radius: Tensor = radius) -> Tensor:
                size = radius[rows]
                return _stepped(setup.x[rows], point, _SHARE * size, _clipped(slope), size)

            run = ascend(evaluate, setup.x, move, steps, judge=True)
            done = run.finished
            images[done], found[done] = run.x[done], eps[done]
            low, high = torch.where(done, low, eps), torch.where(done, eps, high)
            eps = torch.where(done, (low + high) / 2, torch.minimum(2 * eps, (low + high) / 2))
        return MinimumEps(found, images)


def _clean(model: nn.Module, setup: Setup) -> Tensor:
    """Return the logits of the clean images, after the labels were checked against their number."""
    with torch.no_grad():
        logits = check_logits(model(setup.x), setup.x)
    check_labels(setup.y, len(setup.x), logits.shape[1])
    if setup.target is not None:
        check_labels(setup.target, len(setup.x), logits.shape[1], "target labels")
    return logits


def _radii(eps: float | Tensor, x: Tensor) -> Tensor:
    """Return one radius per image, (N,), in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if not isinstance(eps, Tensor):
        return torch.full((len(x),), eps, dtype=wide, device=x.device)
    if eps.shape != (len(x),) or not bool(((eps >= 0) & eps.isfinite()).all()):
        raise InputError(f"eps must be {len(x)} finite numbers >= 0, one per image; leave out images that have none")
    return eps.detach().to(x.device, wide)


def _clipped(slope: Tensor) -> Tensor:
    return (_SLOPE * slope).clamp(-1, 1)


def _stepped(centre: Tensor, point: Tensor, step: Tensor, direction: Tensor, eps: Tensor) -> Tensor:
    """Return the next iterate: a step, then the ball, then the box."""
    column = step.to(point).view(-1, *[1] * (point.ndim - 1))
    return (centre + project("linf", point + column * direction - centre, eps)).clamp(0, 1)
