"""Certainty insensitivity: no small change of the image makes the network more certain of anything."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pellucid.defences.gradient_penalty import Normalisation, forward, penalised
from pellucid.maths.losses import certainty_entropy
from pellucid.protocols import Context
from pellucid.spec import NonNegative, register


@register("defence", "certainty_penalty")
@dataclass(frozen=True, kw_only=True)
class CertaintyPenalty:
    """Cross-entropy plus the squared input gradient of the cross-entropy against uniform labels (the "1/K" penalty).

    paper: 1/B sum_n H(y_n, yhat_n) + weight 1/B sum_n ||grad_{x_n} H(1/K, yhat_n)||_2^2,
    H(1/K, yhat) = -1/K sum_k log yhat_k, whose gradient is -1/K times that of the score sum_k log yhat_k: the label
    enters the first term only. normalisation as in DoubleBackprop ("paper", "paper_sum", "code";
    lambda_paper = lambda_code / (2B)): the authors' 1000 for MNIST and SVHN is 1000/512 = 1.95 here, the default, their
    177.83 for notMNIST 0.347. They report training that becomes unstable near a weight of 10.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "gradient_penalty"}, the weighted terms. Raises InputError for
    images outside [0, 1] and labels out of range.
    Source: Ross & Doshi-Velez 2018, "certainty insensitivity", and authors' code (the released launcher trains it with
    the flag of double backpropagation, read as a slip). Deviations: the mean form.
    """

    weight: NonNegative = 1.953125
    normalisation: Normalisation = "paper"

    moves: ClassVar[str] = "certainty_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        with torch.enable_grad():
            run = forward(model, x, y)
            return penalised(run, certainty_entropy(run.logits), self.weight, self.normalisation)
