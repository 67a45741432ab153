"""Projected gradient descent."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Loss, Size, attacking, label_objective, plain, take_better
from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Ascent, Evaluate, ascend
from pellucid.maths.balls import project, random_start, steepest
from pellucid.protocols import Mode, Norm, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, NonNegative, register

_START_STD = 0.001  # of the normal start, in units of [0, 1]


@register("attack", "pgd")
@dataclass(frozen=True, kw_only=True)
class PGD:
    """Repeated steepest steps up the loss, each projected onto the ball around the image.

    x' <- clip(x + Proj_eps(x' + step_size d(g) - x), 0, 1), g = grad_x' L(y, f(x')),
    d(g) = sign(g) for linf and g / ||g||_2 for l2; with a target the loss of the target is lowered.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in the ball of radius eps (norm linf or
    l2 per image, in units of [0, 1]). step_size None means 2.5 eps / steps. random_start draws the start uniformly from
    the ball; start="normal" draws x + 0.001 N(0, 1), projected (TRADES). restarts > 1 keeps, per image, a run that
    succeeds, and the highest loss otherwise.
    keep="last" returns the last iterate, as the papers do; "best" the one with the highest loss.
    stop_when_fooled lets images leave once misclassified (or classified as the target).
    loss="margin" is max_{j != y} z_j - z_y; a tolerance tau caps it at tau, so that images stay where they are
    misclassified by that much: max(max_{j != t} z_j - z_t, -tau) is lowered for a target.
    direction="sign" (l2 only; for linf it is the same) has d(g) = sign(g): step_size is then that of every pixel, and
    None means 2.5 eps / steps / sqrt(C H W), the same l2 length. order="box_ball" (l2 only; for linf it is the same)
    clips to [0, 1] before the projection, which draws the clipped point towards x and so keeps it within [0, 1].
    mode="train" is for attacks inside training. Raises InputError for images outside [0, 1] and labels out of range.
    Source: Madry et al. 2018, section 2.1; Zhang et al. 2019 (TRADES), algorithm 1 (start="normal"); Boopathy et al.
    2020, section 5 (order: step, ball, box; they evaluate without random start; their margin loss, after Carlini &
    Wagner 2017, has a tolerance); Zhang & Zhu 2019, authors' code (direction="sign", order="box_ball", no random
    start). Deviations: the normal start is brought into the ball and the box at once, where the authors' code leaves
    that to the first step.
    """

    norm: Norm = "linf"
    eps: Size
    step_size: Size | None = None
    steps: Count = 40
    random_start: Flag = True
    start: Literal["uniform", "normal"] = "uniform"
    restarts: Count = 1
    loss: Loss = "cross_entropy"
    tolerance: NonNegative | None = None
    direction: Literal["steepest", "sign"] = "steepest"
    order: Literal["ball_box", "box_ball"] = "ball_box"
    target: TargetRule | None = None
    keep: Literal["last", "best"] = "last"
    mode: Mode = "eval"

    def check(self) -> None:
        """Refuse options that would change nothing."""
        if self.start == "normal" and not self.random_start:
            raise SpecError("attack pgd takes a normal start with random_start only")
        if self.tolerance is not None and self.loss != "margin":
            raise SpecError("attack pgd takes a tolerance with loss margin only")
        if self.norm == "linf" and (self.direction, self.order) != ("steepest", "ball_box"):
            raise SpecError(
                "attack pgd takes direction sign and order box_ball with norm l2 only: for linf they change nothing"
            )

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
        with attacking(model, x, y, target, self.target, rng, self.mode) as setup:
            evaluate = label_objective(model, setup, self.loss, tolerance=self.tolerance)
            return self._climb(evaluate, setup.x, setup.rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' in the ball around x that maximises any per-example objective."""
        return self._climb(plain(objective), check_images(x.detach()), rng or Stream(), leave=False)

    def _climb(self, evaluate: Evaluate, x: Tensor, rng: Stream, leave: bool) -> Tensor:
        best: Ascent | None = None
        for restart in range(self.restarts):
            if best is None or not leave:
                left = torch.arange(len(x), device=x.device)
            else:
                left = torch.nonzero(~best.finished)[:, 0]
            run = self._run(evaluate, x, left, rng.child("restart", restart), leave)
            if best is None:
                best = run
            else:
                take_better(best, run, left)
        assert best is not None
        return best.x

    def _run(self, evaluate: Evaluate, x: Tensor, left: Tensor, rng: Stream, leave: bool) -> Ascent:
        origin, step = x[left], self._step(x)

        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            centre = origin[rows]
            ahead = point + step * (torch.sign(slope) if self.direction == "sign" else steepest(self.norm, slope))
            if self.order == "box_ball":
                ahead = ahead.clamp(0, 1)
            return (centre + project(self.norm, ahead - centre, self.eps)).clamp(0, 1)

        start = origin
        if self.random_start and self.eps > 0:
            start = (origin + self._shift(origin, rng.take(left))).clamp(0, 1)
        return ascend(
            lambda point, rows: evaluate(point, left[rows]),
            start,
            move,
            self.steps,
            keep=self.keep,
            leave=leave,
            judge=self.restarts > 1,
        )

    def _shift(self, origin: Tensor, rng: Stream) -> Tensor:
        if self.start == "normal":
            drawn = _START_STD * rng.child("start").normal(origin, tuple(origin.shape[1:]))
            return project(self.norm, drawn, self.eps)
        return random_start(self.norm, origin, self.eps, rng)

    def _step(self, x: Tensor) -> float:
        if self.step_size is not None:
            return self.step_size
        length = 2.5 * self.eps / self.steps
        return length / max(1, x[0].numel()) ** 0.5 if self.direction == "sign" and len(x) else length
