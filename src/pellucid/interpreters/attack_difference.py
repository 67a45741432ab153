"""An attack as an explanation: what would have to change for the image to be of a class."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import check_logits
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.scores import per_target
from pellucid.protocols import AttackField
from pellucid.rng import Stream
from pellucid.spec import from_dict, register


def _iterated() -> Any:
    return from_dict("iterated_tgsm", "attack")


@register("interpreter", "attack_difference")
@dataclass(frozen=True, kw_only=True)
class AttackDifference(Doors):
    """The difference image of an attack towards a class: how the network would have the image be, to call it that.

    I(x, t) = x'_t - x, x'_t the targeted attack's image for target t. For networks with smooth input gradients it
    reads as a sketch of how to turn one class into another; for others it is noise.

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, C, H, W) in [-1, 1], signed; target (N, M) -> (N, M, C, H, W),
    one attack for each of the M. For t the predicted class the attack makes the image more of the same. The default
    attack is the iterated targeted gradient sign (15 steps of 0.1, no radius) of the paper's Figure 11.
    Raises InputError with create_graph (steps along signs have no derivative), where the attack takes no target
    labels, and for points outside [0, 1].
    Source: Ross & Doshi-Velez 2018, discussion ("Connections between robustness and interpretability") and Figure 11.
    Deviations: none; the paper shows x', beside x.
    """

    attack: AttackField = field(default_factory=_iterated)

    differentiable: ClassVar[bool] = False

    def maps(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the difference images; the caller froze the model."""
        if create_graph:
            raise InputError(
                "the difference image of an attack has no derivative: it cannot be trained or attacked; take "
                "integrated_gradients or grad_cam"
            )
        x = x.detach()
        with torch.no_grad():
            logits = check_logits(model(x), x)
        own = logits.argmax(1)
        return per_target(logits, target, lambda column, _: self.attack(model, x, own, target=column, rng=rng) - x)
