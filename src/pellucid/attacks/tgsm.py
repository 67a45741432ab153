"""The target gradient sign method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.attacks.fgsm import FGSM
from pellucid.attacks.objective import Size
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import register


@register("attack", "tgsm")
@dataclass(frozen=True, kw_only=True)
class TGSM:
    """One step of size eps down the sign of the gradient of a target's loss.

    x' = clip(x - eps sign(grad_x H(t, yhat)), 0, 1).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape with |x' - x| <= eps (linf, in units of
    [0, 1]). Target labels t are chosen by the rule, or given at the call. It is FGSM with a target, under the
    paper's name and with its default rule, t = (y + 1) mod K.
    Raises InputError for images outside [0, 1], labels out of range and networks with one class.
    Source: Kurakin et al. 2016b (one-step target class methods); Ross & Doshi-Velez 2018, equation 3.
    Deviations: clips to [0, 1]; data with another range are mapped to [0, 1] first.
    """

    eps: Size
    target: TargetRule = "next"
    mode: Mode = "eval"

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
        return self._fgsm(model, x, y, target=target, rng=rng, stop_when_fooled=stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x after one sign step up any per-example objective."""
        return self._fgsm.maximise(objective, x, rng=rng)

    def grid(
        self, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float], *, rng: Stream | None = None
    ) -> Iterator[Tensor]:
        """Yield the adversarial images for each eps; one gradient serves them all."""
        return self._fgsm.grid(model, x, y, epsilons, rng=rng)

    @property
    def _fgsm(self) -> FGSM:
        return FGSM(eps=self.eps, target=self.target, mode=self.mode)
