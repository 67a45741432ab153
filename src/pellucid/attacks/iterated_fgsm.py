"""The fast gradient sign method, repeated."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Labels, Size, attacking, label_objective, plain
from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, ascend
from pellucid.maths.balls import project
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, register


@register("attack", "iterated_fgsm")
@dataclass(frozen=True, kw_only=True)
class IteratedFGSM:
    """Steps of size eps along the sign of the loss gradient, which is taken anew at every step.

    x_0 = x; x_{k+1} = clip(x_k + eps sign(grad H(y, yhat(x_k))), 0, 1); with a target t:
    x_{k+1} = clip(x_k - eps sign(grad H(t, yhat(x_k))), 0, 1). With a radius r each x_{k+1} is first clipped to
    [x - r, x + r].

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape with |x' - x| <= min(steps eps, radius) (linf).
    eps is the size of one step, in units of [0, 1], not that of the perturbation; radius None clips to [0, 1] only,
    as Ross & Doshi-Velez do; Kurakin's basic iterative method has a radius. labels="predicted" takes the gradient
    at the model's own prediction at each step; mode="train" uses batch statistics and dropout.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kurakin et al. 2016a, section 2.2; Ross & Doshi-Velez 2018, equation 2, repeated.
    Deviations: clips to [0, 1]; data with another range are mapped to [0, 1] first.
    """

    eps: Size
    steps: Count = 10
    radius: Size | None = None
    labels: Labels = "true"
    target: TargetRule | None = None
    mode: Mode = "eval"

    def check(self) -> None:
        """Refuse two sources of labels at once."""
        if self.labels == "predicted" and self.target is not None:
            raise SpecError("attack iterated_fgsm takes predicted labels or a target rule, not both")

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
            return self._climb(label_objective(model, setup, labels=self.labels), setup.x, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x after the sign steps up any per-example objective."""
        return self._climb(plain(objective), check_images(x.detach()), leave=False)

    def _climb(self, evaluate: Evaluate, x: Tensor, leave: bool) -> Tensor:
        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            ahead = point + self.eps * torch.sign(slope)
            if self.radius is not None:
                ahead = x[rows] + project("linf", ahead - x[rows], self.radius)
            return ahead.clamp(0, 1)

        return ascend(evaluate, x, move, self.steps, leave=leave).x
