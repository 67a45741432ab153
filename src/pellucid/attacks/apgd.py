"""Automatic projected gradient descent, whose only parameter is its budget."""

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Setup, Size, attacking, plain, take_better
from pellucid.errors import GradientError, InputError
from pellucid.guard import check_images, check_labels, check_logits
from pellucid.maths.ascent import Ascent, Evaluate, Step, nothing
from pellucid.maths.balls import project, random_start, steepest
from pellucid.maths.losses import cross_entropy, dlr, margin, targeted_dlr
from pellucid.maths.notes import listening, note
from pellucid.maths.passes import gradient
from pellucid.protocols import Norm, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Share, register


@register("attack", "apgd")
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Projected gradient ascent with momentum that halves its steps, and returns to its best point, where it stalls.

    z = P(x_k + eta d(g_k)); x_{k+1} = P(x_k + momentum (z - x_k) + (1 - momentum)(x_k - x_{k-1})), the first step
    without momentum; eta starts at 2 eps. d is sign for linf, g / ||g||_2 for l2; P clips to the ball, then to [0, 1].
    At checkpoints w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), the
    step is halved and the best point taken up again if (1) fewer than rho (w_j - w_{j-1}) of the steps since w_{j-1}
    raised the loss, or (2) the step was not halved at w_{j-1} and the highest loss has not risen since.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in the ball of radius eps (linf or l2 per
    image, in units of [0, 1]). x' is, of the iterates that succeeded (misclassified, or classified as the target),
    the one with the highest loss; if none did, the iterate with the highest loss of all. Restarts and targets go to
    images that no run has fooled yet. stop_when_fooled takes the first iterate that succeeds; its image leaves.
    loss "dlr": see `maths.dlr`. "targeted_dlr" runs once for each of the `targets` other classes (K - 1 if there are
    fewer) that are likeliest at x, and succeeds with any wrong class; it pays one forward pass to choose them. With a
    target (a rule, or labels at the call) the target's cross entropy is lowered, or its targeted ratio is raised.
    Few classes: for K = 2 "dlr" climbs the margin max_{j != y} z_j - z_y, and "targeted_dlr" z_t - z_y; for K = 3
    "targeted_dlr" divides by z_pi1 - z_pi3. The note `dlr_fallback` says so, or a UserWarning
    where nobody collects notes.
    `maximise` climbs any objective; loss, target and targets play no part in it.
    Costs steps + 1 forward and steps backward passes a run (form="code": the same).

    start="ball" draws the start uniformly from the ball, "surface" from its surface, as the authors' code does (linf:
    uniform, scaled until the largest change is eps; l2: a uniform direction); "image" is x itself.

    form="paper" is Algorithm 1: the checkpoint w_j is looked at when x_{w_j + 1} has been evaluated, which the best
    point then replaces. form="code" is the authors' code: the checkpoint is looked at as soon as x_{w_j} is evaluated,
    so that no step leads away from a point that is given up; windows are int(0.22 steps), then shorter by int(0.03
    steps), no shorter than int(0.06 steps), each at least 1; (1) reads "at most rho (...)"; (2) is not looked at in
    the first window; the first step counts as a rise where the loss after it is positive; a step after a return counts
    as a rise where it ends above the point that was left, not above the best one. For steps = 100 both have the same
    checkpoints.

    Raises InputError for images outside [0, 1], labels out of range and, where it chooses targets, one class.
    Source: Croce & Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, algorithm 1 and section 4. Deviations: for l2, P is ball, then box, as in the authors'
    code, where the paper writes the projection on their intersection; their code returns the last misclassified
    iterate, and the clean image where none was.
    """

    norm: Norm = "linf"
    eps: Size
    steps: Count = 100
    restarts: Count = 1
    loss: Literal["cross_entropy", "dlr", "targeted_dlr"] = "cross_entropy"
    targets: Count = 9
    momentum: Share = 0.75
    rho: Share = 0.75
    start: Literal["ball", "surface", "image"] = "ball"
    target: TargetRule | None = None
    form: Literal["paper", "code"] = "paper"

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
            best = nothing(setup.x)
            if self.loss != "targeted_dlr" or setup.target is not None:
                return self._restart(_objective(model, setup, self.loss), setup, best, stop_when_fooled).x
            classes = self._likeliest(model, setup, best, stop_when_fooled) if len(x) else setup.y[:, None]
            for number, aims in enumerate(classes.unbind(1)):
                run = Setup(setup.x, setup.y, None, setup.rng.child("target", number))
                self._restart(_objective(model, run, "targeted_dlr", aims), run, best, stop_when_fooled)
            return best.x

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' in the ball around x that maximises any per-example objective."""
        x = check_images(x.detach())
        setup = Setup(x, torch.zeros(len(x), dtype=torch.int64, device=x.device), None, rng or Stream())
        return self._restart(plain(objective), setup, nothing(x), leave=False).x

    def _likeliest(self, model: nn.Module, setup: Setup, best: Ascent, leave: bool) -> Tensor:
        """Return the likeliest other classes (N, targets) at x; images fooled there are done if they may leave."""
        with torch.no_grad():
            logits = check_logits(model(setup.x), setup.x)
        check_labels(setup.y, len(setup.x), logits.shape[1])
        if leave:
            best.finished.copy_(logits.argmax(1) != setup.y)
        return likeliest_others(logits, setup.y, self.targets)

    def _restart(self, evaluate: Evaluate, setup: Setup, best: Ascent, leave: bool) -> Ascent:
        """Run from each start on the images that are not fooled yet; what is better goes into `best`, in place."""
        for restart in range(self.restarts):
            left = torch.nonzero(~best.finished)[:, 0]
            if not len(left):  # many networks cannot reshape a batch of no images
                break
            run = self._run(evaluate, setup.x, left, setup.rng.child("restart", restart).take(left), leave)
            take_better(best, run, left)
        return best

    def _run(self, evaluate: Evaluate, x: Tensor, left: Tensor, rng: Stream, leave: bool) -> Ascent:
        """Run Algorithm 1 once on the rows `left` of x."""
        origin, paper = x[left], self.form == "paper"
        windows = (paper_windows if paper else code_windows)(self.steps)
        point = self._start(origin, rng)
        kept = nothing(origin)
        value, slope, finished = _look(evaluate, point, left, self.steps > 0)
        _record(kept, torch.arange(len(left), device=x.device), point, value, finished)
        now = _State(
            rows=torch.arange(len(left), device=x.device),
            origin=origin,
            before=point,
            x=point,
            slope=slope,
            value=value,
            finished=finished,
            last=value if paper else torch.zeros_like(value),  # theirs reads an empty place of a table: 0
            best_x=point,
            best_slope=slope,
            best=value,
            checked=value,
            rises=torch.zeros_like(value),
            step=torch.full_like(value, 2 * self.eps),
            halved=torch.full_like(finished, not paper),
        )
        for k in range(self.steps):
            if leave and bool(now.finished.any()):
                now = _State(*(part[~now.finished] for part in now))
            if not len(now.rows):
                break
            point = self._move(now, first=k == 0)
            value, slope, finished = _look(evaluate, point, left[now.rows], k + 1 < self.steps)
            _record(kept, now.rows, point, value, finished)
            if paper and k in windows:  # what is known up to x_k decides about x_{k+1}
                stalled, now = self._check(now, windows[k])
                now = now.reach(point, value, slope, finished).back(stalled).counted()
                continue
            now = now.reach(point, value, slope, finished).counted()
            if not paper and k + 1 in windows:
                stalled, now = self._check(now, windows[k + 1])
                now = now.back(stalled)
        return kept

    def _start(self, origin: Tensor, rng: Stream) -> Tensor:
        if self.start == "image" or self.eps == 0:
            return origin
        if self.start == "ball":
            return (origin + random_start(self.norm, origin, self.eps, rng)).clamp(0, 1)
        if self.norm == "l2":
            return (origin + self.eps * steepest("l2", rng.normal(origin))).clamp(0, 1)
        noise = 2 * rng.uniform(origin) - 1
        return (origin + self.eps * noise / noise.abs().amax((1, 2, 3), keepdim=True)).clamp(0, 1)

    def _move(self, now: "_State", first: bool) -> Tensor:
        """Return x_{k+1}: a projected step, then a projected mean of it and of the last movement."""
        there = self._project(now.x + now.step.to(now.x).view(-1, 1, 1, 1) * steepest(self.norm, now.slope), now)
        if first:
            return there
        carried = now.x + self.momentum * (there - now.x) + (1 - self.momentum) * (now.x - now.before)
        return self._project(carried, now)

    def _project(self, point: Tensor, now: "_State") -> Tensor:
        return (now.origin + project(self.norm, point - now.origin, self.eps)).clamp(0, 1)

    def _check(self, now: "_State", window: int) -> tuple[Tensor, "_State"]:
        """Say who stalled in the `window` steps since the last checkpoint, and halve their steps."""
        few = now.rises < self.rho * window if self.form == "paper" else now.rises <= self.rho * window
        stalled = few | (~now.halved & (now.checked >= now.best))
        step = torch.where(stalled, now.step / 2, now.step)
        return stalled, now._replace(step=step, halved=stalled, checked=now.best, rises=torch.zeros_like(now.rises))


class _State(NamedTuple):
    """Where the images that are still climbing stand, one row each."""

    rows: Tensor  # places in the run
    origin: Tensor
    before: Tensor  # x_{k-1}
    x: Tensor  # x_k
    slope: Tensor  # the gradient there
    value: Tensor  # the loss there
    last: Tensor  # the loss with which the next is compared
    finished: Tensor
    best_x: Tensor
    best_slope: Tensor
    best: Tensor
    checked: Tensor  # the highest loss at the last checkpoint
    rises: Tensor  # steps since then that raised the loss
    step: Tensor  # eta
    halved: Tensor  # at the last checkpoint

    def reach(self, x: Tensor, value: Tensor, slope: Tensor, finished: Tensor) -> "_State":
        """Take up the next point, and remember it where it is the best."""
        higher = value > self.best
        return self._replace(
            before=self.x,
            x=x,
            value=value,
            slope=slope,
            finished=finished,
            best_x=_where(higher, x, self.best_x),
            best_slope=_where(higher, slope, self.best_slope),
            best=torch.where(higher, value, self.best),
        )

    def counted(self) -> "_State":
        """Count a rise where the loss is above the last one."""
        return self._replace(rises=self.rises + (self.value > self.last), last=self.value)

    def back(self, rows: Tensor) -> "_State":
        """Put some rows on their best point."""
        return self._replace(
            x=_where(rows, self.best_x, self.x),
            slope=_where(rows, self.best_slope, self.slope),
            value=torch.where(rows, self.best, self.value),
        )


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, 1, 1, 1), yes, no)


def _look(evaluate: Evaluate, point: Tensor, rows: Tensor, climbing: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the value of each row, its gradient (zeros if nobody is to climb it) and who succeeded."""
    point = point.detach().requires_grad_(climbing)
    with torch.set_grad_enabled(climbing):
        value, success = evaluate(point, rows)
    slope = gradient(value, point) if climbing else torch.zeros_like(point)
    if bool(slope.isnan().any()):
        raise GradientError("the gradient of the objective contains NaN: there is no direction to climb")
    finished = torch.zeros_like(rows, dtype=torch.bool) if success is None else success
    return value.detach().to(torch.promote_types(point.dtype, torch.float32)), slope, finished


def _record(kept: Ascent, rows: Tensor, point: Tensor, value: Tensor, finished: Tensor) -> None:
    """Keep, in place, the points that succeeded before those that did not, and then the higher loss."""
    higher = (finished == kept.finished[rows]) & (value > kept.values[rows])
    better = higher | (finished & ~kept.finished[rows])
    for old, new in zip(kept, (point, value, finished)):
        old[rows[better]] = new[better]


def paper_windows(steps: int) -> dict[int, int]:
    """Return {w_j: w_j - w_{j-1}}, j = 1, 2, ..., for w_j = ceil(p_j steps) below steps (paper, section 3.1).

    >>> paper_windows(100)
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    windows, last, p, gap = {}, 0, 22, 22  # in hundredths, so that nothing is rounded
    while (checkpoint := -(-p * steps // 100)) < steps:
        if checkpoint > last:
            windows[checkpoint] = checkpoint - last
        last, gap = checkpoint, max(gap - 3, 6)
        p += gap
    return windows


def code_windows(steps: int) -> dict[int, int]:
    """Return {checkpoint: length of the window before it} of the authors' code.

    >>> code_windows(20)
    {4: 4, 7: 3, 9: 2, 10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1, 17: 1, 18: 1, 19: 1}
    """
    windows, checkpoint = {}, 0
    window, shorter, shortest = (max(share * steps // 100, 1) for share in (22, 3, 6))
    while (checkpoint := checkpoint + window) < steps:
        windows[checkpoint] = window
        window = max(window - shorter, shortest)
    return windows


def likeliest_others(logits: Tensor, y: Tensor, most: int) -> Tensor:
    """Return the likeliest classes except y, likeliest first: (N, K), (N,) -> (N, min(most, K - 1)).

    Raises InputError for fewer than two classes.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise InputError("a targeted attack needs at least two classes")
    others = logits.detach().scatter(1, y[:, None], -torch.inf)
    return others.sort(dim=1, descending=True, stable=True).indices[:, : min(most, classes - 1)]


def _objective(model: nn.Module, setup: Setup, loss: str, aims: Tensor | None = None) -> Evaluate:
    """Return evaluate(x', rows); aims are the classes of "targeted_dlr", which any wrong class fulfils."""
    target, checked = setup.target, False

    def evaluate(point: Tensor, rows: Tensor) -> Step:
        nonlocal checked
        logits, y = check_logits(model(point), point), setup.y[rows]
        if not checked:
            check_labels(setup.y, len(setup.x), logits.shape[1])
            if target is not None:
                check_labels(target, len(setup.x), logits.shape[1], "target labels")
            checked = True
        predicted = logits.detach().argmax(1)
        finished = predicted != y if target is None else predicted == target[rows]
        goal = target if aims is None else aims
        if loss == "cross_entropy":
            return Step(cross_entropy(logits, y) if goal is None else -cross_entropy(logits, goal[rows]), finished)
        _announce(logits.shape[1], 3 if goal is None else 4, setup.x)
        return Step(_ratio(logits, y, None if goal is None else goal[rows]), finished)

    return evaluate


def _ratio(logits: Tensor, y: Tensor, goal: Tensor | None) -> Tensor:
    """Return the (targeted) difference of logits ratio, or what takes its place where the classes are too few."""
    classes = logits.shape[1]
    if goal is None:
        return dlr(logits, y) if classes > 2 else margin(logits, y)
    if classes > 3:
        return targeted_dlr(logits, y, goal)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    lead = wide.gather(1, goal[:, None])[:, 0] - wide.gather(1, y[:, None])[:, 0]
    return lead if classes < 3 else lead / (wide.amax(1) - wide.amin(1) + 1e-12)


def _announce(classes: int, needed: int, x: Tensor) -> None:
    if classes < needed:
        heard = listening()
        note("dlr_fallback", torch.ones(len(x), dtype=torch.bool, device=x.device))
        if heard:
            return
        warnings.warn(
            f"attack apgd: {classes} classes are too few for this ratio of logits; it climbs a simpler one",
            stacklevel=2,
        )
