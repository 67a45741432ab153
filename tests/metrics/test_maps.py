import itertools
import math

import pytest
import torch
from scipy import stats

from pellucid.errors import InputError
from pellucid.metrics import kendall_tau, stability
from pellucid.metrics.maps import _tau_by_pairs


def tau_by_hand(a: list[float], b: list[float]) -> float:
    score = tied_a = tied_b = total = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        score += ((a[i] > a[j]) - (a[i] < a[j])) * ((b[i] > b[j]) - (b[i] < b[j]))
        tied_a, tied_b, total = tied_a + (a[i] == a[j]), tied_b + (b[i] == b[j]), total + 1
    return score / math.sqrt((total - tied_a) * (total - tied_b))


def tied_maps(generator: torch.Generator, n: int = 6, positions: int = 49) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.randint(0, 8, (n, positions), generator=generator).float()
    return a, a + torch.randint(-4, 5, (n, positions), generator=generator)


def test_tau_b_counts_pairs_and_ties(generator):
    a, b = tied_maps(generator)
    expected = torch.tensor([tau_by_hand(u.tolist(), v.tolist()) for u, v in zip(a, b)], dtype=torch.float64)
    torch.testing.assert_close(kendall_tau(a, b), expected, rtol=0, atol=1e-12)
    assert 0.1 < float(expected.mean()) < 0.9


@pytest.mark.parametrize("budget", [1, 100, 49 * 49 * 4, 1 << 24])
def test_comparing_all_pairs_in_parts_gives_the_same(generator, budget):
    a, b = tied_maps(generator)
    torch.testing.assert_close(_tau_by_pairs(a, b, budget), kendall_tau(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [kendall_tau, _tau_by_pairs])
def test_extremes_constants_and_nan(tau):
    rising = torch.arange(4.0)
    constant, broken = torch.full((4,), 0.3), torch.tensor([0.0, float("nan"), 1.0, 2.0])
    a = torch.stack([rising, rising, rising, constant, broken])
    b = torch.stack([rising.exp(), -rising, constant, rising, rising])
    values = tau(a, b)
    assert values.dtype == torch.float64
    assert values[:2].tolist() == [1.0, -1.0]
    assert values[2:].isnan().all()


@pytest.mark.parametrize("tau", [kendall_tau, _tau_by_pairs])
def test_tiny_differences_still_rank(tau):
    a = torch.tensor([[3e-45, 1e-45, 1e-38, 0.0]])
    assert tau(a, torch.tensor([[2.0, 1.0, 3.0, 0.0]])).tolist() == [1.0]


@pytest.mark.parametrize("tau", [kendall_tau, _tau_by_pairs])
def test_no_image_and_no_pair(tau):
    assert tau(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
    assert tau(torch.zeros(2, 1), torch.ones(2, 1)).isnan().all()


def test_maps_with_height_and_width_are_flattened_and_monotone_changes_do_not_count(generator):
    a, b = tied_maps(generator)
    square = kendall_tau(a.view(6, 7, 7), b.view(6, 7, 7))
    assert torch.equal(square, kendall_tau(torch.exp(a), 3 * b - 2))


def test_agrees_with_scipy_on_untied_maps(generator):
    a, b = torch.rand(3, 30, generator=generator), torch.rand(3, 30, generator=generator)
    expected = [stats.kendalltau(u.numpy(), v.numpy()).statistic for u, v in zip(a, b)]
    torch.testing.assert_close(_tau_by_pairs(a, b), torch.tensor(expected, dtype=torch.float64))


def test_refuses_maps_of_different_shape():
    with pytest.raises(InputError, match="same shape"):
        kendall_tau(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(InputError, match="same shape"):
        kendall_tau(torch.zeros(4), torch.zeros(4))


def test_stability_averages_what_was_kept_and_says_on_how_many_it_rests():
    tau = torch.tensor([0.2, 0.4, float("nan"), -1.0, 0.9], dtype=torch.float64)
    result = stability(tau, torch.tensor([True, True, True, False, True]))
    assert result.tau.value == pytest.approx(0.5)
    assert result.tau.low < 0.5 < result.tau.high
    assert (result.kept, result.undefined) == (3, 1)


def test_stability_on_one_image_and_on_none():
    tau = torch.tensor([0.2, 0.4])
    one = stability(tau, torch.tensor([False, True]))
    assert one.tau.value == pytest.approx(0.4)
    assert one.kept == 1
    assert math.isnan(one.tau.low)
    none = stability(tau, torch.tensor([False, False]))
    assert none.kept == 0
    assert math.isnan(none.tau.value)


def test_stability_refuses_numbers_in_place_of_truth_values():
    with pytest.raises(InputError, match="kept"):
        stability(torch.zeros(2), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="kept"):
        stability(torch.zeros(2), torch.tensor([True]))
