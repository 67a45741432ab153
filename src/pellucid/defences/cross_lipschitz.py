"""Cross-Lipschitz regularisation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.defences.gradient_penalty import chosen, forward, inseparable
from pellucid.defences.jacobian import PositiveShare
from pellucid.maths.jacobian import squared_frobenius
from pellucid.protocols import Context
from pellucid.spec import NonNegative, register


@register("defence", "cross_lipschitz")
@dataclass(frozen=True, kw_only=True)
class CrossLipschitz:
    """Cross-entropy plus the squared differences between the gradients of all pairs of logits.

    Omega_i = sum_{j,k} ||grad z_k(x_i) - grad z_j(x_i)||_2^2 over ordered pairs, each pair twice. With the logits less
    their mean, z_k - 1/K sum_j z_j, of Jacobian C_i, it is 2K ||C_i||_F^2 = 2K sum_k ||g_k||^2 - 2 ||sum_k g_k||^2:
    K backward passes, as many as an exact Jacobian needs.

    normalisation (H_i the cross-entropy, B the batch size, K the number of classes, lambda the field `weight`):
    paper:     1/B sum_i H_i + lambda/B sum_i Omega_i          (equation 6 divided by B; the default)
    paper_sum: sum_i H_i + lambda sum_i Omega_i                (equation 6 to the letter, same minimiser)
    hein:      1/B sum_i H_i + lambda/(K^2 B) sum_i Omega_i    (Hein & Andriushchenko)

    so that lambda_hein = K^2 lambda_paper. Jakubovitz & Giryes print no lambda. The default has, for 10 classes, the
    scale of Hoffman et al.'s 0.01 for the squared Jacobian: 2K lambda = 0.01 / 2.
    examples < 1 takes Omega of a random share of the batch, one image at least, whose mean stands for the batch's; they
    have a forward of their own, so that they cost their share (not with batch normalisation in train mode, where the
    whole batch is passed, and the gradients contain terms of the others).

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "cross_lipschitz"}, the weighted terms. Raises InputError for
    images outside [0, 1] and labels out of range.
    Source: Hein & Andriushchenko 2017 and authors' code; Jakubovitz & Giryes 2018, equation 6. Deviations: the
    mean form above.
    """

    weight: NonNegative = 0.00025
    normalisation: Literal["paper", "paper_sum", "hein"] = "paper"
    examples: PositiveShare = 1.0

    moves: ClassVar[str] = "cross_lipschitz"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        entire = self.examples == 1 or inseparable(model)
        with torch.enable_grad():
            run = forward(model, x, y, differentiable=entire and self.weight > 0)
            loss = run.losses.sum() if self.normalisation == "paper_sum" else run.losses.mean()
            if self.weight == 0:
                return {"cross_entropy": loss, "cross_lipschitz": torch.zeros_like(loss)}
            picked = chosen(run.x, self.examples, ctx or Context())
            if entire:
                found = pair_differences(run.logits, run.x)[picked]
            else:
                point = run.x[picked].requires_grad_(True)
                found = pair_differences(model(point), point)
            mean = found.mean()
        scale = {"paper": 1.0, "paper_sum": float(len(run.x)), "hein": run.logits.shape[1] ** -2}[self.normalisation]
        return {"cross_entropy": loss, "cross_lipschitz": self.weight * scale * mean}


def pair_differences(logits: Tensor, x: Tensor) -> Tensor:
    """Return sum_{j,k} ||grad z_k - grad z_j||^2 over ordered pairs, with its graph: (N, K) of x (N, ...) -> (N,)."""
    centred = logits - logits.mean(1, keepdim=True)
    return 2 * logits.shape[1] * squared_frobenius(centred, x, create_graph=True)
