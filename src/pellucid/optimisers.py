"""Optimisers as descriptions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from annotated_types import Lt
from torch import nn

from pellucid.spec import Flag, NonNegative, Positive, register


@runtime_checkable
class Optimiser(Protocol):
    """A description of how weights are moved."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser for these weights."""
        ...

    def prepare(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Set what changes from step to step (0-based) before the step is taken."""
        ...


@register("optimiser", "adam")
@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, with either reading of its epsilon.

    theta <- theta - lr m^ / (sqrt(v^) + eps), m^ and v^ the bias-corrected moments (PyTorch and the paper's
    algorithm); eps_hat=True adds eps to sqrt(v) before its bias correction (TensorFlow; "epsilon hat" in
    section 2 of the paper), which is the first form with eps / sqrt(1 - beta2^t) at step t.

    Source: Kingma & Ba 2015, algorithm 1. Ross & Doshi-Velez 2018 train with lr 2e-4 and eps 1e-4 in
    TensorFlow, so with eps_hat=True.
    """

    lr: Positive = 2e-4
    eps: Positive = 1e-8
    beta1: Annotated[NonNegative, Lt(1)] = 0.9
    beta2: Annotated[NonNegative, Lt(1)] = 0.999
    weight_decay: NonNegative = 0.0
    eps_hat: Flag = False

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's Adam for these weights."""
        return torch.optim.Adam(
            parameters, lr=self.lr, eps=self.eps, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay
        )

    def prepare(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Rescale eps for this step where TensorFlow's form is asked for."""
        if self.eps_hat:
            for group in optimiser.param_groups:
                group["eps"] = self.eps / (1 - self.beta2 ** (step + 1)) ** 0.5
