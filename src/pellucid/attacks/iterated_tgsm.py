"""The target gradient sign method, repeated."""

from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.attacks.iterated_fgsm import IteratedFGSM
from pellucid.attacks.objective import Size
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, register


@register("attack", "iterated_tgsm")
@dataclass(frozen=True, kw_only=True)
class IteratedTGSM:
    """Steps of size eps down the sign of the gradient of a target's loss, which is taken anew at every step.

    x_0 = x; x_{k+1} = clip(x_k - eps sign(grad H(t, yhat(x_k))), 0, 1).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. eps is the size of one step, in units of
    [0, 1]; the perturbation is bounded by steps eps and by [0, 1] only. The target stays what the rule chose for
    x, or what the call gave. It is iterated FGSM with a target and without a radius, under the paper's name and with
    its defaults: t = (y + 1) mod K, 15 steps of 0.1.
    Raises InputError for images outside [0, 1], labels out of range and networks with one class.
    Source: Kurakin et al. 2016a, section 2.3 (with a radius, least likely class); Ross & Doshi-Velez 2018, Figure 11.
    Deviations: clips to [0, 1]; data with another range are mapped to [0, 1] first.
    """

    eps: Size = 0.1
    steps: Count = 15
    target: TargetRule = "next"
    mode: Mode = "eval"

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
        return self._iterated(model, x, y, target=target, rng=rng, stop_when_fooled=stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x after the sign steps up any per-example objective."""
        return self._iterated.maximise(objective, x, rng=rng)

    @property
    def _iterated(self) -> IteratedFGSM:
        return IteratedFGSM(eps=self.eps, steps=self.steps, target=self.target, mode=self.mode)
