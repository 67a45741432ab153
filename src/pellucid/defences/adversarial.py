"""Adversarial training."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.attacks import FGSM, with_eps
from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels
from pellucid.maths.losses import cross_entropy
from pellucid.protocols import Attack, AttackField, Context
from pellucid.schedule import Ramp
from pellucid.spec import Share, member, register


@register("defence", "adversarial_training")
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining:
    """Cross-entropy on clean images and on adversarial images of the same batch.

    L = (1 - share) 1/N sum H(y, f(x)) + share 1/N sum H(y, f(x')), x' = attack(f, x, y), no gradient through x'.

    The default is Ross & Doshi-Velez's: share 1/2, FGSM with eps 0.3 against the model's own predictions, its
    gradient taken in train mode (batch statistics, dropout); both forwards update the batch-norm statistics.
    batches="separate" passes clean and adversarial images through the network one after the other, each with batch
    statistics of its own (the authors' code); "together" in one batch, which keeps the running statistics of batch
    normalisation those of what the network sees, where separate ones drift apart (small data, large eps).
    `eps` moves the attack's eps during training; where it is 0 no attack is run and x' = x.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "adversarial_cross_entropy"}, the weighted terms.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kurakin et al. 2016b; Ross & Doshi-Velez 2018, Background and authors' code.
    Deviations: the attack runs a forward pass of its own, with a dropout mask of its own; the authors' code takes
    predictions and gradient from the clean forward that also enters the loss.
    """

    attack: AttackField = field(default_factory=lambda: FGSM(eps=0.3, labels="predicted", mode="train"))
    share: Share = 0.5
    batches: Literal["separate", "together"] = "separate"
    eps: Annotated[Ramp, member("ramp")] | None = None

    moves: ClassVar[str] = "attacked_accuracy"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps."""
        if self.eps is not None:
            with_eps(self.attack, 0.0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx = ctx or Context()
        x = check_images(x)
        if not len(x):
            raise InputError("adversarial training needs at least one image")
        if self.batches == "together":
            y = check_labels(y, len(x), single=True)
            logits, adversarial = model(torch.cat([x, self._examples(model, x, y, ctx)])).split(len(x))
            check_labels(y, len(x), logits.shape[1])
        else:
            logits = model(x)
            y = check_labels(y, len(x), logits.shape[1], single=True)
            adversarial = model(self._examples(model, x, y, ctx))
        return {
            "cross_entropy": (1 - self.share) * cross_entropy(logits, y).mean(),
            "adversarial_cross_entropy": self.share * cross_entropy(adversarial, y).mean(),
        }

    def _examples(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        attack: Attack = self.attack if self.eps is None else with_eps(self.attack, self.eps(ctx))
        if getattr(attack, "eps", None) == 0:
            return x
        return attack(model, x, y, rng=ctx.stream)
