"""Regularisation of the gradient of one logit."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.defences.gradient_penalty import Forward, Normalisation, forward, penalised
from pellucid.protocols import Context
from pellucid.spec import NonNegative, register


@register("defence", "logit_gradient_penalty")
@dataclass(frozen=True, kw_only=True)
class LogitGradientPenalty:
    """Cross-entropy plus the squared input gradient of a logit: one row of the Jacobian at the price of one.

    paper: 1/B sum_n H(y_n, yhat_n) + weight 1/B sum_n ||grad_{x_n} h_n||_2^2, with h by `logits`
    true: z_y, that of the label; predicted: max_k z_k; sum: sum_k z_k.

    A gradient of the loss vanishes where the network is certain, one of a logit does not. normalisation as in
    DoubleBackprop; weight=1/2 at "paper" is the share of one row in JacobianRegularization's "squared" with weight 1.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "gradient_penalty"}, the weighted terms. Raises InputError for
    images outside [0, 1] and labels out of range.
    Source: equation 6 of Ross & Doshi-Velez 2018 with a logit for the cross-entropy; no paper's method, a baseline
    between double backpropagation and the Jacobian. Deviations: none.
    """

    weight: NonNegative = 0.01
    logits: Literal["true", "predicted", "sum"] = "true"
    normalisation: Normalisation = "paper"

    moves: ClassVar[str] = "logit_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        with torch.enable_grad():
            run = forward(model, x, y)
            return penalised(run, self._scores(run), self.weight, self.normalisation)

    def _scores(self, run: Forward) -> Tensor:
        if self.logits == "sum":
            return run.logits.sum(1)
        labels = run.y if self.logits == "true" else run.logits.detach().argmax(1)
        return run.logits.gather(1, labels[:, None])[:, 0]
