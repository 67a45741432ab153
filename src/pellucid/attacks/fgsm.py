"""The fast gradient sign method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Labels, Size, attacking, label_objective, plain
from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, ascend
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import register


@register("attack", "fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of size eps along the sign of the loss gradient.

    x' = clip(x + eps sign(grad_x H(y, yhat)), 0, 1); with a target t: x' = clip(x - eps sign(grad_x H(t, yhat))).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape with |x' - x| <= eps (linf, in units of
    [0, 1]). Where the gradient is exactly zero the pixel stays (as in the paper's Figure 1 for distillation).
    labels="predicted" takes the gradient at the model's own prediction, which adversarial training uses against
    label leaking; mode="train" uses batch statistics and dropout, as Ross & Doshi-Velez's training does.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Goodfellow et al. 2014; Ross & Doshi-Velez 2018, equations 2 and 3.
    Deviations: clips to [0, 1]; data with another range are mapped to [0, 1] first. Jakubovitz & Giryes 2018,
    equation 16, prints a minus sign, read as a misprint.
    """

    eps: Size
    labels: Labels = "true"
    target: TargetRule | None = None
    mode: Mode = "eval"

    norm = "linf"

    def check(self) -> None:
        """Refuse two sources of labels at once."""
        if self.labels == "predicted" and self.target is not None:
            raise SpecError("attack fgsm takes predicted labels or a target rule, not both")

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
            return self._step(label_objective(model, setup, labels=self.labels), setup.x, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x after one sign step up any per-example objective."""
        return self._step(plain(objective), check_images(x.detach()), leave=False)

    def grid(
        self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float], *, rng: Stream | None = None
    ) -> Iterator[Tensor]:
        """Yield the adversarial images for each eps; one gradient serves them all."""
        with attacking(model, x, y, None, self.target, rng, self.mode) as setup:
            evaluate = label_objective(model, setup, labels=self.labels)
            signs = ascend(evaluate, setup.x, lambda point, slope, values, rows: torch.sign(slope), steps=1).x
        yield from ((setup.x + eps * signs).clamp(0, 1) for eps in epsilons)

    def _step(self, evaluate: Evaluate, x: Tensor, leave: bool) -> Tensor:
        def move(point: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            return (point + self.eps * torch.sign(slope)).clamp(0, 1)

        return ascend(evaluate, x, move, steps=1, leave=leave).x
