"""TRADES: accuracy on clean images, and the same predictions around them."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.defences.inner import RampField, at_this_step, check_ramp, climbing, some
from pellucid.guard import check_images, check_labels
from pellucid.maths.losses import cross_entropy, wide
from pellucid.protocols import AttackField, Context
from pellucid.spec import NonNegative, register


@register("defence", "trades")
@dataclass(frozen=True, kw_only=True)
class TRADES:
    """Cross-entropy of clean images, and the divergence of what is predicted around them from that.

    L = 1/N sum H(y, f(x)) + weight 1/N sum KL(f(x) || f(x')), x' = the attack's maximiser of KL(f(x) || f(x')).

    The gradient of the second term flows through f(x) and f(x'), not through x'. The attack climbs from f(x) held
    fixed; it needs a random start, since the divergence has no slope at x. weight is beta: 1 is what Boopathy et al.
    train with (mean form; their code adds the divergences to a scalar and sums over the batch, the same ratio),
    Zhang et al. print 1 for MNIST and 6 for CIFAR-10 (eps 0.031, 10 steps of 0.007). The attack's start="normal" is
    theirs (x + 0.001 N(0, 1)), the default uniform one that of Boopathy et al. weight=0 is plain training, and runs no
    attack. `eps` moves the attack's eps during training; where it is 0 x' = x and the divergence is 0.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "divergence"}, the weighted terms.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Zhang et al. 2019, equation 5; Boopathy et al. 2020, section 5 (baseline). Deviations: none known.
    """

    weight: NonNegative = 1.0
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.3, steps=40, step_size=0.01))
    eps: RampField = None

    moves: ClassVar[str] = "attacked_accuracy"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps."""
        check_ramp(self.attack, self.eps)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx = ctx or Context()
        x = check_images(x)
        some(len(x), "trades")
        logits = model(x)
        y = check_labels(y, len(x), logits.shape[1], single=True)
        loss = cross_entropy(logits, y).mean()
        terms = {"cross_entropy": loss, "divergence": torch.zeros_like(loss)}
        attack = at_this_step(self.attack, self.eps, ctx)
        if attack is not None and self.weight > 0:
            with climbing(model, attack, ctx.stream):
                with torch.no_grad():
                    fixed = model(x).detach()
                moved = attack.maximise(lambda p, rows: divergence(fixed[rows], model(p)), x, rng=ctx.stream)
            terms["divergence"] = self.weight * divergence(logits, model(moved)).mean()
        return terms


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return KL(softmax(logits) || softmax(other)) per row: (N, K), (N, K) -> (N,), differentiable in both.

    >>> divergence(torch.zeros(1, 2), torch.tensor([[0.0, 0.0]])).tolist()
    [0.0]
    """
    ours, theirs = (functional.log_softmax(wide(z), 1) for z in (logits, other))
    return (ours.exp() * (ours - theirs)).sum(1)
