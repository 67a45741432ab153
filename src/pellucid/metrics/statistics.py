"""How sure a number is: intervals for shares and for means."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor

from pellucid.errors import InputError

_BUDGET = 10_000_000  # numbers drawn at a time, so that 10,000 values need 80 MB rather than 800


class Interval(NamedTuple):
    """A number with the ends of its confidence interval."""

    value: float
    low: float
    high: float


_UNKNOWN = Interval(math.nan, math.nan, math.nan)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return a share with its Wilson score interval, which is sound near 0 and 1 and for few samples.

    value = p = s/n; ends (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile.

    successes in 0..n -> three numbers in [0, 1], all NaN where n is 0. Raises InputError for other counts and
    for a confidence outside (0, 1). Source: Wilson 1927.

    >>> share = wilson(90, 100)
    >>> share.value, round(share.low, 3), round(share.high, 3)
    (0.9, 0.826, 0.945)
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise InputError(f"successes must be 0..n; got {successes} of {n}")
    if n == 0:
        return _UNKNOWN
    ends = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, "wilson")
    return Interval(successes / n, float(ends.low), float(ends.high))


def bootstrap_mean(
    values: Tensor | Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 9999,
) -> Interval:
    """Return a mean with its bootstrap interval (bias-corrected and accelerated).

    value = (1/N) sum_n v_n; the ends are adjusted percentiles of the means of `resamples` draws with
    replacement.

    values (N,), any scale -> three numbers. No values: all NaN. One value: its own mean, NaN ends, since one
    value says nothing about the spread. All values alike: low = high = value. Where the adjustment is
    undefined the plain percentiles are given. The same seed gives the same ends; no global generator is used.
    Raises InputError for NaN or infinite values, more than one axis, a confidence outside (0, 1), no resamples
    or a negative seed. Source: Efron 1987, section 2.

    >>> bootstrap_mean([0.5, 0.5, 0.5])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    _check_confidence(confidence)
    if resamples < 1 or seed < 0:
        raise InputError(f"resamples must be at least 1 and seed 0 or more; got {resamples} and {seed}")
    array = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"a bootstrap needs one axis of values; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError("a bootstrap needs finite values; leave out those that are undefined, and say how many")
    if len(array) == 0:
        return _UNKNOWN
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean, math.nan, math.nan)
    if (array == array[0]).all():
        same = float(array[0])
        return Interval(same, same, same)
    if np.ptp(array) <= 1e-12 * np.abs(array).max():  # alike but for rounding: no spread to draw from
        return Interval(mean, float(array.min()), float(array.max()))
    low, high = _ends(array, confidence, seed, resamples, "BCa")
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = _ends(array, confidence, seed, resamples, "percentile")
    return Interval(mean, low, high)


def _ends(array: np.ndarray, confidence: float, seed: int, resamples: int, method: str) -> tuple[float, float]:
    ends = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _BUDGET // len(array)),
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
