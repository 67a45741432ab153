"""Gradient regularisation with the network's own predictions in place of the labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.defences.gradient_penalty import Normalisation, forward, penalised
from pellucid.maths.losses import wide
from pellucid.protocols import Context
from pellucid.spec import Flag, NonNegative, register


@register("defence", "entropy_penalty")
@dataclass(frozen=True, kw_only=True)
class EntropyPenalty:
    """Cross-entropy plus the squared input gradient of the entropy of the network's own prediction.

    paper: 1/B sum_n H(y_n, yhat_n) + weight 1/B sum_n ||grad_{x_n} H(yhat_n, yhat_n)||_2^2,
    H(yhat, yhat) = -sum_k yhat_k log yhat_k, of gradient -sum_k (log yhat_k) grad yhat_k.
    detach=True holds the first yhat fixed, as labels are; the gradient is then -sum_k yhat_k grad log yhat_k =
    -grad sum_k yhat_k = 0, the expected score: the penalty is 0 up to rounding whatever the network, and training is
    plain. The paper reports that this penalty has no effect, which fits detach=True; it does not say which it took.
    Where gradients flow, a network that is certain of everything, or of nothing, has no penalty: a large weight makes
    it predict the same for all images, so that the default is small. normalisation as in DoubleBackprop.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "gradient_penalty"}, the weighted terms. Raises InputError for
    images outside [0, 1] and labels out of range.
    Source: Ross & Doshi-Velez 2018, Figure 9 (not in the released code). Deviations: the mean form.
    """

    weight: NonNegative = 0.2
    detach: Flag = False
    normalisation: Normalisation = "paper"

    moves: ClassVar[str] = "entropy_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        with torch.enable_grad():
            run = forward(model, x, y)
            log_p = functional.log_softmax(wide(run.logits), 1)
            p = log_p.exp()
            scores = -((p.detach() if self.detach else p) * log_p).sum(1)
            return penalised(run, scores, self.weight, self.normalisation)
