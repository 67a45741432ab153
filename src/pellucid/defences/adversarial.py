"""Adversarial training."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.attacks import FGSM
from pellucid.defences.inner import RampField, at_this_step, check_ramp, some
from pellucid.guard import check_images, check_labels
from pellucid.maths.losses import cross_entropy
from pellucid.protocols import AttackField, Context
from pellucid.spec import Share, register


@register("defence", "adversarial_training")
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining:
    """Cross-entropy on clean images and on adversarial images of the same batch.

    L = (1 - share) 1/N sum H(y, f(x)) + share 1/N sum H(y, f(x')), x' = attack(f, x, y), no gradient through x'.

    The default is Ross & Doshi-Velez's: share 1/2, FGSM with eps 0.3 against the model's own predictions, its
    gradient taken in train mode (batch statistics, dropout); both forwards update the batch-norm statistics.
    share=1 is Madry et al.'s: adversarial images only, and no forward of the clean ones.
    batches="separate" passes clean and adversarial images through the network one after the other, each with batch
    statistics of its own (the authors' code); "together" in one batch, which keeps the running statistics of batch
    normalisation those of what the network sees, where separate ones drift apart (small data, large eps).
    "mixed" replaces round(share N) images of the batch, the first ones (so shuffle), by adversarial ones and passes the
    others clean, each once: L = 1/N sum H (Jakubovitz & Giryes's fraction of perturbed inputs), the same in expectation
    at half the cost. "alternate" turns whole batches: adversarial at even steps, clean at odd ones, whatever the share
    (the code of Zhang & Zhu, whose equation 1 has adversarial images only: share=1); a log after an even number of
    steps shows a clean one.
    `eps` moves the attack's eps during training; where it is 0 no attack is run and x' = x.
    Labels and mode of the attack (true or predicted labels, batch statistics or running ones) are its own fields.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "adversarial_cross_entropy"}, the weighted terms.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kurakin et al. 2016b; Ross & Doshi-Velez 2018, Background and authors' code; Madry et al. 2018,
    equation 2.1; Zhang & Zhu 2019, equation 1; Jakubovitz & Giryes 2018, section 4.
    Deviations: the attack runs a forward pass of its own, with a dropout mask of its own; Ross's code takes
    predictions and gradient from the clean forward that also enters the loss.
    """

    attack: AttackField = field(default_factory=lambda: FGSM(eps=0.3, labels="predicted", mode="train"))
    share: Share = 0.5
    batches: Literal["separate", "together", "mixed", "alternate"] = "separate"
    eps: RampField = None

    moves: ClassVar[str] = "attacked_accuracy"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps."""
        check_ramp(self.attack, self.eps)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx = ctx or Context()
        x = check_images(x)
        some(len(x), "adversarial training")
        y = check_labels(y, len(x), single=True)
        clean, attacked = self._losses(model, x, y, ctx)
        return {
            "cross_entropy": clean.sum() / len(x),
            "adversarial_cross_entropy": attacked.sum() / len(x),
        }

    def _losses(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return the weighted losses of clean and of adversarial images."""
        if self.batches in ("mixed", "alternate"):
            turn = len(x) * (ctx.step % 2 == 0) if self.batches == "alternate" else round(self.share * len(x))
            moved = self._examples(model, x[:turn], y[:turn], ctx)
            losses = _losses(model(torch.cat([moved, x[turn:]])), y)
            return losses[turn:], losses[:turn]
        if self.batches == "together" and self.share < 1:
            both = torch.cat([x, self._examples(model, x, y, ctx)])
            clean, attacked = _losses(model(both), torch.cat([y, y])).chunk(2)
        else:
            clean = _losses(model(x), y) if self.share < 1 else x.new_zeros(1)
            attacked = _losses(model(self._examples(model, x, y, ctx)), y)
        return (1 - self.share) * clean, self.share * attacked

    def _examples(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        attack = at_this_step(self.attack, self.eps, ctx)
        if attack is None or not len(x):
            return x
        return attack(model, x, y, rng=ctx.stream.take(torch.arange(len(x), device=x.device)))


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits, check_labels(y, len(logits), logits.shape[1], single=True))
