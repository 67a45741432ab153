"""Training without a defence."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pellucid.defences.inner import some
from pellucid.guard import check_images, check_labels
from pellucid.maths.losses import cross_entropy, wide
from pellucid.protocols import Context
from pellucid.spec import Positive, register


@register("defence", "standard")
@dataclass(frozen=True, kw_only=True)
class Standard:
    """The mean cross-entropy of the batch: the undefended network.

    L = 1/N sum_n H(y_n, softmax(z_n / temperature)); x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy": scalar}.

    temperature 1 is plain training; another one makes the teacher of `Distillation`. The network is used at
    temperature 1 afterwards, whatever it was trained at.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Ross & Doshi-Velez 2018, equations 1 and 4. Deviations: mean instead of sum over the batch.
    """

    temperature: Positive = 1.0

    moves: ClassVar[str] = "nothing"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        x = check_images(x)
        some(len(x), "training")
        logits = model(x)
        y = check_labels(y, len(x), logits.shape[1], single=True)
        return {"cross_entropy": cross_entropy(wide(logits) / self.temperature, y).mean()}
