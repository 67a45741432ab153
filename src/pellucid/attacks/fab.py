"""The fast adaptive boundary attack: the smallest change that crosses a boundary between classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks.apgd import likeliest_others
from pellucid.attacks.objective import Setup, Size, attacking
from pellucid.errors import GradientError, InputError
from pellucid.guard import check_labels, check_logits
from pellucid.maths.balls import dual_norm, project, steepest
from pellucid.maths.hyperplane import onto_hyperplane
from pellucid.maths.losses import margin
from pellucid.maths.passes import gradient
from pellucid.protocols import Norm, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Positive, Share, Whole, register


@register("attack", "fab")
@dataclass(frozen=True, kw_only=True)
class FAB:
    """Step onto the linearised boundary, pulled towards the image, and back from the boundary once it is crossed.

    With f_l(z) = z_l - z_y, linearised at x_i, s = argmin_l |f_l(x_i)| / ||grad f_l(x_i)||_q (q dual to the norm);
    d and d_0 are the smallest changes that bring x_i and the image x onto the hyperplane of s within [0, 1];
    alpha = min(||d|| / (||d|| + ||d_0||), alpha_max);
    x_{i+1} = clip((1 - alpha)(x_i + eta d) + alpha (x + eta d_0), 0, 1); if that is misclassified, it is remembered
    where it is nearer than all before, and x_{i+1} <- (1 - beta) x + beta x_{i+1}.
    At the end, final_steps times, the segment from x to the nearest one found is cut where the difference of logits
    interpolated between its ends is zero, and the half that holds the boundary is kept.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in the ball of radius eps (linf or l2 per
    image, in units of [0, 1]). x' is the nearest misclassified point found if it lies in the ball. If not, the attack
    failed, and x' is that point (the last iterate if there was none) projected onto the ball. Images that are
    misclassified come back as they are. The search does not know eps, except for its restarts, which begin on a
    sphere of radius min(eps, distance found) / 2; eps=1 for linf, or a large one for l2, gives minimal distances.
    stop_when_fooled ends the search of an image once a misclassified point lies in the ball.
    boundaries="targets" (FAB-T) runs once for each of the `targets` other classes (K - 1 if there are fewer) that are
    likeliest at x, with s fixed to it; a step costs 2 forward and 1 backward pass. "nearest" is the form above, with
    K - 1 backward passes. With a target t (a rule, or labels at the call) only t is a success, and the boundary is that
    of its region, f = z_t - max_{j != t} z_j: the paper has no such attack.
    `maximise` raises InputError: there are no classes to cross between. Raises InputError too for images outside
    [0, 1], labels out of range and networks with one class.
    Source: Croce & Hein 2020, Minimally distorted adversarial examples with a fast adaptive boundary attack,
    algorithm 1; targets: Croce & Hein 2020, Reliable evaluation of adversarial robustness,
    section 5. Deviations: the default is FAB-T, as the untargeted form does not scale with K (the same paper).
    A point is found only where its class leads by more than rounding, 64 machine epsilon (at most 0.02) times max |z|,
    and the final search aims at twice that, not at zero: a point on the boundary itself would change its class with
    the batch it is in. AutoAttack's code has no such condition, no final search (final_steps=0), and takes each image
    out once a run succeeded within eps.
    """

    norm: Norm = "linf"
    eps: Size
    steps: Count = 100
    restarts: Count = 1
    boundaries: Literal["targets", "nearest"] = "targets"
    targets: Count = 9
    alpha_max: Share = 0.1
    eta: Positive = 1.05
    beta: Share = 0.9
    final_steps: Whole = 3
    target: TargetRule | None = None

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
        with attacking(model, x, y, target, self.target, rng) as setup:
            if not len(x):
                return setup.x.clone()
            search = _begin(model, setup)
            enough = self.eps if stop_when_fooled else 0.0
            for number, aims in enumerate(self._aims(search)):
                for restart in range(self.restarts):
                    self._run(search, aims, enough, setup.rng.child("target", number, "restart", restart), restart > 0)
            self._cut(search, enough)
            near = search.x + project(self.norm, search.found - search.x, self.eps)
            return _where(search.size <= self.eps, search.found, near.clamp(0, 1))

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: an objective has no classes."""
        raise InputError("attack fab crosses boundaries between classes; it cannot climb an objective")

    def _aims(self, search: "_Search") -> Iterator[Tensor]:
        """Yield, run by run, the classes (N, M) whose boundaries are looked at."""
        if search.target is not None:
            yield search.target[:, None]  # once, against whatever class leads
        elif self.boundaries == "nearest":
            yield likeliest_others(search.clean, search.y, search.clean.shape[1])
        else:
            yield from likeliest_others(search.clean, search.y, self.targets)[:, :, None].unbind(1)

    def _run(self, search: "_Search", aims: Tensor, enough: float, rng: Stream, away: bool) -> None:
        """Run Algorithm 1 once, on the images whose nearest misclassified point is not near enough."""
        rows = torch.nonzero(search.size > enough)[:, 0]
        point = self._start(search.x[rows], search.size[rows], rng.take(rows)) if away else search.x[rows]
        for _ in range(self.steps):
            if bool((over := search.size[rows] <= enough).any()):
                rows, point = rows[~over], point[~over]
            if not len(rows):
                return
            origin = search.x[rows]
            value, slope = self._boundary(search, point, rows, aims[rows])
            there = onto_hyperplane(self.norm, point, slope, value)
            at_origin = value + (slope * (origin - point)).flatten(1).sum(1)
            from_origin = onto_hyperplane(self.norm, origin, slope, at_origin)
            way, way_from_origin = self._size(there), self._size(from_origin)
            share = way / torch.where(way > 0, way + way_from_origin, torch.ones_like(way))
            pull = share.clamp(max=self.alpha_max).to(point).view(-1, 1, 1, 1)
            point = (1 - pull) * (point + self.eta * there) + pull * (origin + self.eta * from_origin)
            point = point.clamp(0, 1)
            fooled = self._judge(search, rows, point)
            point = _where(fooled, (1 - self.beta) * origin + self.beta * point, point)
        lost = search.size[rows].isinf()
        search.found[rows[lost]] = point[lost]

    def _start(self, origin: Tensor, size: Tensor, rng: Stream) -> Tensor:
        """Return points at half the distance found so far, or half of eps where that is less."""
        if self.norm == "l2":
            direction = steepest("l2", rng.normal(origin))
        else:
            noise = 2 * rng.uniform(origin) - 1
            direction = noise / noise.abs().amax((1, 2, 3), keepdim=True)
        return (origin + size.clamp(max=self.eps).to(origin).view(-1, 1, 1, 1) / 2 * direction).clamp(0, 1)

    def _boundary(self, search: "_Search", point: Tensor, rows: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_s (n,) and its gradient at each point, s being the class in `aims` with the nearest boundary."""
        point = point.detach().requires_grad_(True)
        logits = check_logits(search.model(point), point)
        values = _ahead(search, rows, logits, aims)
        nearest = torch.full_like(values[:, 0].detach(), torch.inf)
        kept, kept_slope = torch.zeros_like(nearest), torch.zeros_like(point)
        for number, value in enumerate(values.unbind(1)):
            slope = gradient(value, point, retain_graph=number + 1 < aims.shape[1])
            if bool(slope.isnan().any()):
                raise GradientError("the gradient of the logits contains NaN: there is no boundary to step onto")
            value = value.detach()
            length = dual_norm(self.norm, slope)
            distance = value.abs() / (length + torch.finfo(length.dtype).tiny)
            nearer = (distance < nearest) | (number == 0)
            nearest, kept = torch.where(nearer, distance, nearest), torch.where(nearer, value, kept)
            kept_slope = _where(nearer, slope, kept_slope)
        return kept, kept_slope

    def _judge(self, search: "_Search", rows: Tensor, point: Tensor) -> Tensor:
        """Say which points are misclassified; remember, in place, those that are nearer than what was found."""
        with torch.no_grad():
            logits = check_logits(search.model(point), point)
        fooled = _fooled(search, rows, logits)
        size = self._size(point - search.x[rows])
        closer = fooled & _certain(logits) & (size < search.size[rows])
        search.found[rows[closer]], search.size[rows[closer]] = point[closer], size[closer]
        search.logits[rows[closer]] = logits[closer]
        return fooled

    def _cut(self, search: "_Search", enough: float) -> None:
        """Look for a nearer point on the segment from each image to what was found (the final search)."""
        rows = torch.nonzero((search.size > enough) & search.size.isfinite())[:, 0]
        low, low_logits = search.x[rows], search.clean[rows]
        for _ in range(self.final_steps if len(rows) else 0):
            high, high_logits = search.found[rows], search.logits[rows]
            there = high_logits.argmax(1, keepdim=True)
            safe = 2 * _rounding(high_logits)
            behind = -_ahead(search, rows, low_logits, there)[:, 0]
            ahead = _ahead(search, rows, high_logits, there)[:, 0]
            share = (behind + safe) / (behind + ahead)
            share = torch.where((share >= 0) & (share <= 1), share, torch.ones_like(share))  # also where it is NaN
            middle = (low + share.to(low).view(-1, 1, 1, 1) * (high - low)).clamp(0, 1)
            with torch.no_grad():
                logits = check_logits(search.model(middle), middle)
            fooled = _fooled(search, rows, logits) & _certain(logits)
            size = self._size(middle - search.x[rows])
            nearer = fooled & (size <= search.size[rows])
            search.found[rows[nearer]], search.size[rows[nearer]] = middle[nearer], size[nearer]
            search.logits[rows[nearer]] = logits[nearer]
            low, low_logits = _where(fooled, low, middle), torch.where(fooled[:, None], low_logits, logits)

    def _size(self, delta: Tensor) -> Tensor:
        wide = delta.flatten(1).to(torch.promote_types(delta.dtype, torch.float32))
        size: Tensor = torch.linalg.vector_norm(wide, ord=torch.inf if self.norm == "linf" else 2, dim=1)
        return size


class _Search(NamedTuple):
    """What is known about every image of the call; the last three are written to in place."""

    model: nn.Module
    x: Tensor
    y: Tensor
    target: Tensor | None
    clean: Tensor  # logits at x
    found: Tensor  # the nearest misclassified point, or where the search ended
    size: Tensor  # its distance; infinite where there is none
    logits: Tensor  # its logits


def _begin(model: nn.Module, setup: Setup) -> _Search:
    """Look at the images themselves: those that are misclassified have been found."""
    with torch.no_grad():
        logits = check_logits(model(setup.x), setup.x)
    if logits.shape[1] < 2:
        raise InputError("attack fab needs a network of at least two classes: one class has no boundary")
    check_labels(setup.y, len(setup.x), logits.shape[1])
    if setup.target is not None:
        check_labels(setup.target, len(setup.x), logits.shape[1], "target labels")
    predicted = logits.argmax(1)
    done = predicted != setup.y if setup.target is None else predicted == setup.target
    size = torch.zeros_like(logits[:, 0], dtype=torch.promote_types(setup.x.dtype, torch.float32))
    size = size.masked_fill(~done, torch.inf)
    return _Search(model, setup.x, setup.y, setup.target, logits, setup.x.clone(), size, logits.clone())


def _ahead(search: _Search, rows: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """Return by how much the logits of `classes` (n, M) lead that of the true label, or all others if targeted."""
    if search.target is not None:
        return margin(logits, search.target[rows]).neg()[:, None]
    return logits.gather(1, classes) - logits.gather(1, search.y[rows, None])


def _fooled(search: _Search, rows: Tensor, logits: Tensor) -> Tensor:
    predicted = logits.argmax(1)
    goal: Tensor = search.y[rows] if search.target is None else search.target[rows]
    return predicted != goal if search.target is None else predicted == goal


def _rounding(logits: Tensor) -> Tensor:
    """Return how far the logits of an image may differ from batch to batch, (n,), with something to spare."""
    unit: float = min(64 * torch.finfo(logits.dtype).eps, 0.02)
    return logits.abs().amax(1) * unit


def _certain(logits: Tensor) -> Tensor:
    """Say where the predicted class leads by more than rounding."""
    first, second = logits.topk(2, 1).values.unbind(1)
    certain: Tensor = first - second > _rounding(logits)
    return certain


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, 1, 1, 1), yes, no)
