import math

import numpy as np
import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics import Interval, bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(0, 10, 0.95), (10, 10, 0.95), (3, 7, 0.95), (8450, 10000, 0.99)]
)
def test_wilson_is_the_printed_formula(successes, n, confidence):
    z = {0.95: 1.959963984540054, 0.99: 2.5758293035489004}[confidence]
    p = successes / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    share = wilson(successes, n, confidence)
    assert share.value == p
    assert share.low == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-9)
    assert share.high == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-9)


def test_wilson_of_nothing_is_unknown():
    assert all(math.isnan(number) for number in wilson(0, 0))


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5), (1, 0)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(InputError, match="successes"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence):
    with pytest.raises(InputError, match="confidence"):
        wilson(1, 2, confidence)
    with pytest.raises(InputError, match="confidence"):
        bootstrap_mean([0.0, 1.0], confidence)


def test_bootstrap_interval_is_the_normal_one_for_many_normal_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    mean = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert mean.value == pytest.approx(values.mean(), abs=1e-12)
    assert mean.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_interval_of_skewed_values_leans_to_their_long_side():
    values = np.random.default_rng(2).exponential(size=60)
    mean = bootstrap_mean(values)
    assert mean.high - mean.value > 1.05 * (mean.value - mean.low) > 0


def test_bootstrap_interval_is_corrected_for_skewness():
    generator = np.random.default_rng(2)
    values = generator.exponential(size=60)
    means = values[generator.integers(0, 60, (9999, 60))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = bootstrap_mean(values)
    assert mean.low > low + 0.005
    assert mean.high > high + 0.01


def test_bootstrap_depends_on_its_seed_only_and_leaves_numpy_alone():
    values = torch.linspace(0, 1, 30, dtype=torch.float64) ** 2
    before = np.random.get_state()[1].copy()
    first = bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values.tolist(), seed=7) == first != bootstrap_mean(values, seed=8)
    assert (np.random.get_state()[1] == before).all()


def test_bootstrap_without_spread():
    assert bootstrap_mean([0.1, 0.1, 0.1]) == Interval(0.1, 0.1, 0.1)  # 0.30000000000000004 / 3 otherwise
    one = bootstrap_mean(torch.tensor([0.25]))
    assert one.value == 0.25
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert all(math.isnan(number) for number in bootstrap_mean([]))


def test_bootstrap_of_two_values_has_finite_ends():
    two = bootstrap_mean([0.0, 1.0])
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)


def test_bootstrap_of_ten_thousand_values_stays_within_memory_and_is_narrow():
    values = np.random.default_rng(3).uniform(size=10_000)
    mean = bootstrap_mean(values, resamples=500)
    assert 0 < mean.high - mean.low < 0.02


@pytest.mark.parametrize("values", [[0.0, float("nan")], [float("inf"), 1.0]])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(InputError, match="finite"):
        bootstrap_mean(values)


def test_bootstrap_refuses_tables():
    with pytest.raises(InputError, match="one axis"):
        bootstrap_mean(torch.zeros(3, 2))


@pytest.mark.parametrize("given", [{"resamples": 0}, {"seed": -1}])
def test_a_bootstrap_needs_resamples_and_a_seed(given):
    with pytest.raises(InputError, match="resamples must be at least 1 and seed 0 or more"):
        bootstrap_mean([0.0, 1.0], **given)
