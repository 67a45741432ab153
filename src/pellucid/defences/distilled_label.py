"""Gradient regularisation with a teacher's softened predictions in place of the labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.defences.distillation import softened
from pellucid.defences.gradient_penalty import Normalisation, forward, penalised
from pellucid.defences.teacher import TeacherField
from pellucid.maths.losses import wide
from pellucid.protocols import Context
from pellucid.spec import NonNegative, Positive, register


@register("defence", "distilled_label_penalty")
@dataclass(frozen=True, kw_only=True)
class DistilledLabelPenalty:
    """Cross-entropy plus the squared input gradient of the cross-entropy against a teacher's softened predictions.

    paper: 1/B sum_n H(y_n, yhat_n) + weight 1/B sum_n ||grad_{x_n} H(q_n, yhat_n)||_2^2,
    H(q, yhat) = -sum_k q_k log yhat_k, q_n = softmax(t_n / T) of the teacher's logits t in eval mode, held fixed.
    The first term keeps the true labels, and the network's own temperature is 1: only the penalty changes, which is
    how the paper's sentence is read. normalisation as in DoubleBackprop. T -> 0 is double backpropagation with the
    teacher's predictions as labels, T -> infinity CertaintyPenalty. At T = 50 q is nearly uniform: the
    default weight is that of CertaintyPenalty.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "gradient_penalty"}, the weighted terms. `teacher` is a task
    that makes a network; where none is named, the training task trains it first, as for Distillation, and elsewhere it
    is given by Context(network=lambda task: teacher). Raises InputError where neither is done, for a teacher of other
    classes, images outside [0, 1] and labels out of range.
    Source: Ross & Doshi-Velez 2018, Figure 9 (not in the released code). Deviations: the mean form.
    """

    weight: NonNegative = 1.953125
    teacher: TeacherField = None
    temperature: Positive = 50.0
    normalisation: Normalisation = "paper"

    moves: ClassVar[str] = "certainty_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        with torch.enable_grad():
            run = forward(model, x, y)
            teacher = (ctx or Context()).network(self.teacher)
            targets = softened(teacher, run.x, run.logits, self.temperature)
            scores = -(targets * functional.log_softmax(wide(run.logits), 1)).sum(1)
            return penalised(run, scores, self.weight, self.normalisation)
