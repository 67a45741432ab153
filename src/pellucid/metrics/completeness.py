"""Whether a map adds up to what it explains."""

from typing import NamedTuple, get_args

from torch import Tensor

from pellucid.errors import InputError
from pellucid.maths.discrepancy import Positions


class CompletenessError(NamedTuple):
    """How far maps are from adding up, (N,): in units of the score, and as a share of the difference of scores."""

    error: Tensor
    share: Tensor


def completeness_error(
    maps: Tensor, score: Tensor, baseline_score: Tensor | float = 0.0, *, positions: Positions = "sum"
) -> CompletenessError:
    """Return how far the sum of a map is from the score that it explains, per image; lower is better.

    |sum_i I_i - (s(x) - s(a))|, and the same divided by |s(x) - s(a)|. For integrated gradients a is the baseline;
    for CAM (positions="mean") the mean over positions explains the logit, with the head's bias as baseline score.

    maps (N, D) or (N, ...), score (N,), baseline_score (N,) or a number -> two float64 (N,) >= 0; the share is
    infinite (or NaN) where the scores are equal. Raises InputError where the numbers of images differ
    and for other positions.
    Source: Sundararajan et al. 2017, proposition 1; Boopathy et al. 2020, section 2.

    >>> import torch
    >>> completeness_error(torch.tensor([[1.0, 2.0]]), torch.tensor([5.0]), 1.0)
    CompletenessError(error=tensor([1.], dtype=torch.float64), share=tensor([0.2500], dtype=torch.float64))
    """
    if positions not in get_args(Positions):
        raise InputError(f"positions must be mean or sum; got {positions!r}")
    if not 2 <= maps.ndim <= 4 or score.shape != maps.shape[:1]:
        raise InputError(
            f"maps must be (N, ...) of one class each, with scores (N,); got {tuple(maps.shape)} and "
            f"{tuple(score.shape)}"
        )
    if isinstance(baseline_score, Tensor) and baseline_score.shape not in ((), score.shape):
        raise InputError(f"baseline scores must be one number or (N,); got {tuple(baseline_score.shape)}")
    start = baseline_score.detach().double() if isinstance(baseline_score, Tensor) else baseline_score
    gap = score.detach().double() - start
    flat = maps.detach().double().flatten(1)
    error = ((flat.sum(1) if positions == "sum" else flat.mean(1)) - gap).abs()
    return CompletenessError(error, error / gap.abs())
