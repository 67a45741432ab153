"""The Frank-Wolfe attack in an l1 ball."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Loss, Size, attacking, label_objective, plain
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, ascend
from pellucid.maths.balls import fill_l1, random_start
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, register


@register("attack", "frank_wolfe_l1")
@dataclass(frozen=True, kw_only=True)
class FrankWolfeL1:
    """Steps towards the corner of the l1 ball and of [0, 1] in which the linearised loss is highest.

    x_{t+1} = x_t + (s_t - x_t) / (t + 1), t = 0, 1, ...; s_t = x + argmax_d <grad L(x_t), d> over ||d||_1 <= eps and
    0 <= x + d <= 1: the pixels with the largest gradients go to 0 or 1, one after the other, until eps is used up.
    With a target the loss of the target is lowered.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape with sum |x' - x| <= eps. eps is in units
    of [0, 1], summed over all pixels and channels; Kang et al. count pixels to 255: theirs is 255 times as large
    (CIFAR-10: 195 to 24960, here 195/255 to 24960/255), and what their program takes is that divided by C H W.
    random_start takes the first gradient at a point drawn uniformly from the ball; the first step forgets the point.
    Costs one forward and one backward pass a step. Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kang et al. 2019, Testing robustness against unforeseen adversaries, and authors' code; Frank &
    Wolfe 1956. Deviations: the random start is clipped to [0, 1], which the authors leave.
    """

    eps: Size
    steps: Count = 200
    random_start: Flag = True
    loss: Loss = "cross_entropy"
    target: TargetRule | None = None
    mode: Mode = "eval"

    norm = "l1"

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
            return self._climb(label_objective(model, setup, self.loss), setup.x, setup.rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' in the ball around x that maximises any per-example objective."""
        return self._climb(plain(objective), check_images(x.detach()), rng or Stream(), leave=False)

    def _climb(self, evaluate: Evaluate, x: Tensor, rng: Stream, leave: bool) -> Tensor:
        steps_done = itertools.count(1)

        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            centre = x[rows]
            corner = centre + fill_l1(slope, self.eps, torch.where(slope > 0, 1 - centre, centre))
            return (point + (corner - point) / next(steps_done)).clamp(0, 1)

        start = x
        if self.random_start and self.eps > 0:
            start = (x + random_start("l1", x, self.eps, rng.child("start"))).clamp(0, 1)
        return ascend(evaluate, start, move, self.steps, leave=leave).x
