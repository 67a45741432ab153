"""Losses and scores, one value per example, in float32 at least."""

import torch
from torch import Tensor
from torch.nn import functional


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p of the target classes: logits (N, K), target (N,) -> (N,)."""
    return functional.log_softmax(_wide(logits), 1).gather(1, target[:, None])[:, 0]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return H(y, yhat) = -log p_y per example: logits (N, K), target (N,) -> (N,)."""
    return -log_probability(logits, target)


def certainty_entropy(logits: Tensor) -> Tensor:
    """Return H(1/K, yhat) = -(1/K) sum_k log p_k per example (Ross & Doshi-Velez 2018): (N, K) -> (N,)."""
    return -functional.log_softmax(_wide(logits), 1).mean(1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return max_{j != y} z_j - z_y per example, positive where y is not predicted: (N, K), (N,) -> (N,).

    Source: Carlini & Wagner 2017, equation for f_6 without its floor.
    """
    logits = _wide(logits)
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, target[:, None], True)
    return logits.masked_fill(own, -torch.inf).amax(1) - logits.gather(1, target[:, None])[:, 0]
