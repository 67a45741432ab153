"""Defensive distillation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.defences.inner import some
from pellucid.defences.teacher import TeacherField
from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels, frozen
from pellucid.maths.losses import wide
from pellucid.protocols import Context
from pellucid.spec import Positive, register


@register("defence", "distillation")
@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Cross-entropy against a teacher's softened predictions instead of the labels.

    L = -1/N sum_n sum_k q_nk log softmax(z_n / T)_k, q_n = softmax(t_n / T), t the teacher's logits in eval mode.

    The teacher is a network of the same kind trained on the labels at the same temperature; where none is named, the
    training task trains it first, by its own schedule, with Standard(temperature=T). Afterwards the network is used at
    temperature 1, as the paper does: logits are then about T times as large as they would be, the gradient of the loss
    underflows in float32, and FGSM leaves images as they are. That is the phenomenon, not a fault to be mended.
    x (N, C, H, W) in [0, 1], y (N,), which is only checked -> {"cross_entropy": scalar}. The teacher sees the images
    that the student sees, augmented ones included. Raises InputError for images outside [0, 1], labels out of range and
    a teacher of other classes, or where no teacher is to be had (`Context.network`).
    Source: Papernot et al. 2016; Ross & Doshi-Velez 2018, equations 4 and 5 (T = 50; evaluated at "T = 0" in the text,
    1 in the code). Deviations: mean instead of sum over the batch; teacher and student train equally long, where the
    code of Ross & Doshi-Velez stops the teacher at 10,000 batches and the student at 15,000.
    """

    teacher: TeacherField = None
    temperature: Positive = 50.0

    moves: ClassVar[str] = "teacher_divergence"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        x = check_images(x)
        some(len(x), "distillation")
        logits = model(x)
        check_labels(y, len(x), logits.shape[1], single=True)
        targets = softened((ctx or Context()).network(self.teacher), x, logits, self.temperature)
        logs = functional.log_softmax(wide(logits) / self.temperature, 1)
        return {"cross_entropy": -(targets * logs).sum(1).mean()}


def softened(teacher: nn.Module, x: Tensor, like: Tensor, temperature: float) -> Tensor:
    """Return softmax(t / T) of the teacher's logits t in eval mode, without a graph: (N, K), like the student's."""
    with frozen(teacher), torch.no_grad():
        logits = teacher(x)
    if logits.shape != like.shape:
        raise InputError(f"the teacher gives {logits.shape[1]} classes, the network {like.shape[1]}")
    return functional.softmax(wide(logits) / temperature, 1).detach()
