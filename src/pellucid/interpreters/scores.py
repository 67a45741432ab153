"""The numbers that a map explains: scores of a class, one per image."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.guard import check_labels
from pellucid.maths.losses import certainty_entropy, log_probability

Score = Literal["logit", "log_probability", "cross_entropy", "certainty"]


def score_of(score: Score, logits: Tensor, target: Tensor) -> Tensor:
    """Return the score of the target classes: logits (N, K), target (N,) -> (N,).

    logit: f_c; log_probability: log p_c; cross_entropy: -log p_c; certainty: sum_k log p_k, whatever the target.
    """
    if score == "logit":
        return logits.gather(1, target[:, None])[:, 0]
    if score == "certainty":
        return -logits.shape[1] * certainty_entropy(logits)
    own = log_probability(logits, target)
    return own if score == "log_probability" else -own


def per_target(logits: Tensor, target: Tensor, mapped: Callable[[Tensor, bool], Tensor]) -> Tensor:
    """Return mapped(column, more) of each column of targets (N,) or (N, M): (N, ...) or (N, M, ...), from one forward.

    `more` says that another column follows, which needs the graph again.
    """
    columns = check_labels(target, len(logits), logits.shape[1], "targets")
    if columns.ndim == 1:
        return mapped(columns, False)
    last = columns.shape[1] - 1
    return torch.stack([mapped(column, number < last) for number, column in enumerate(columns.unbind(1))], 1)
