"""Fast adversarial training."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pellucid.attacks import PGD
from pellucid.defences.adversarial import AdversarialTraining
from pellucid.defences.inner import RampField
from pellucid.protocols import Context, Mode
from pellucid.spec import NonNegative, Positive, register


@register("defence", "fast_adversarial_training")
@dataclass(frozen=True, kw_only=True)
class FastAdversarialTraining:
    """Cross-entropy on images moved by one sign step from a random point of the ball: two passes instead of many.

    L = 1/N sum H(y, f(x')), x' = clip(x + Proj_eps(d + step eps sign(grad H(y, f(x + d))))), d uniform in the ball.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy" (0), "adversarial_cross_entropy"}. eps in units of [0, 1]
    (linf), step in units of eps. `ramp` moves eps during training. The gradient of the step is taken in train mode,
    as the authors do, unless mode="eval". Long runs fail suddenly (robust to this one step, to nothing else):
    train with `watch` (a PGD) and the stop rule SuddenOverfitting, which is the authors' remedy.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Wong, Rice & Kolter 2020, algorithm 3. Deviations: the forward pass of the step moves no batch-norm
    statistics, as theirs does.
    """

    eps: NonNegative
    step: Positive = 1.25
    mode: Mode = "train"
    ramp: RampField = None

    moves: ClassVar[str] = "attacked_accuracy"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        eps = self.eps if self.ramp is None else self.ramp(ctx or Context())
        attack = PGD(eps=eps, step_size=self.step * eps, steps=1, mode=self.mode)
        return AdversarialTraining(attack=attack, share=1.0)(model, x, y, ctx)
