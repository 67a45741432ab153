"""Losses and scores, one value per example, in float32 at least."""

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32 at least: of half precision, as under autocast, a softmax is too coarse."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p of the target classes: logits (N, K), target (N,) -> (N,)."""
    return functional.log_softmax(wide(logits), 1).gather(1, target[:, None])[:, 0]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return H(y, yhat) = -log p_y per example: logits (N, K), target (N,) -> (N,)."""
    return -log_probability(logits, target)


def certainty_entropy(logits: Tensor) -> Tensor:
    """Return H(1/K, yhat) = -(1/K) sum_k log p_k per example (Ross & Doshi-Velez 2018): (N, K) -> (N,)."""
    return -functional.log_softmax(wide(logits), 1).mean(1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return max_{j != y} z_j - z_y per example, positive where y is not predicted: (N, K), (N,) -> (N,).

    Source: Carlini & Wagner 2017, equation for f_6 without its floor.
    """
    logits = wide(logits)
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, target[:, None], True)
    return logits.masked_fill(own, -torch.inf).amax(1) - logits.gather(1, target[:, None])[:, 0]


_TINY = 1e-12  # keeps the difference of logits ratios finite where the logits are equal


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Return the difference of logits ratio per example: logits (N, K), target (N,) -> (N,).

    DLR = -(z_y - max_{j != y} z_j) / (z_pi1 - z_pi3), pi the order of the logits, largest first: the margin in a
    unit that neither shifts nor scalings of the logits change; at least 0 where y is not predicted, in [-1, 0]
    where it is. The denominator is raised by 1e-12, as in the authors' code. Raises InputError for K < 3.
    Source: Croce & Hein 2020, Reliable evaluation of adversarial robustness, section 4.
    """
    if logits.shape[1] < 3:
        raise InputError(f"the difference of logits ratio needs at least 3 classes; there are {logits.shape[1]}")
    first, _, third = wide(logits).topk(3, 1).values.unbind(1)
    return margin(logits, target) / (first - third + _TINY)


def targeted_dlr(logits: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio: logits (N, K), true labels (N,), targets (N,) -> (N,).

    -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2), pi the order of the logits, largest first; the denominator is
    raised by 1e-12, as in the authors' code. Raises InputError for K < 4.
    Source: Croce & Hein 2020, Reliable evaluation of adversarial robustness, section 4.
    """
    if logits.shape[1] < 4:
        raise InputError(f"the targeted difference of logits ratio needs at least 4 classes; got {logits.shape[1]}")
    scores = wide(logits)
    first, _, third, fourth = scores.topk(4, 1).values.unbind(1)
    lead = scores.gather(1, own[:, None])[:, 0] - scores.gather(1, target[:, None])[:, 0]
    return -lead / (first - (third + fourth) / 2 + _TINY)
