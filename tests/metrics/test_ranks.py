"""Rank measures of maps: Spearman's rho, the k largest positions, and tau where few positions are."""

import pytest
import torch
from scipy import stats

from pellucid.errors import InputError
from pellucid.metrics import kendall_tau, maps, spearman, top_k_intersection
from pellucid.rng import Stream


def drawn(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return Stream(seed).normal(torch.empty(n, 0, dtype=torch.float64), shape)


def test_spearman_is_scipys_also_with_ties():
    a, b = drawn(8, 30), drawn(8, 30, seed=1)
    for one, other in ((a, b), (a.round(), b.round()), (a.round(), b)):
        expected = [stats.spearmanr(u, v).statistic for u, v in zip(one.numpy(), other.numpy())]
        torch.testing.assert_close(
            spearman(one, other), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_ranks_do_not_care_about_scale_and_shape():
    a, b = drawn(3, 4, 5), drawn(3, 4, 5, seed=1)
    for measure in (spearman, kendall_tau):
        torch.testing.assert_close(measure(a, b), measure(a.flatten(1).exp(), 7 * b.flatten(1) - 2))
        assert measure(a[:0], b[:0]).shape == (0,)
        constant = measure(torch.ones(2, 4), drawn(2, 4))
        assert bool(constant.isnan().all()), "a constant map ranks nothing"
        with pytest.raises(InputError, match="same shape"):
            measure(a, b[:2])


def test_tau_of_two_positions_and_of_one():
    pair = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 1.0]])
    found = kendall_tau(pair, torch.tensor([[0.0, 5.0], [5.0, 0.0], [0.0, 5.0]]))
    assert found[:2].tolist() == [1.0, -1.0]
    assert bool(found[2].isnan())
    assert bool(kendall_tau(pair[:, :1], pair[:, 1:]).isnan().all())


def test_tau_lies_where_the_maps_lie_whatever_the_default_device():
    a, b = drawn(3, 9), drawn(3, 9, seed=1)
    expected = kendall_tau(a, b)
    torch.set_default_device("meta")
    try:
        found = kendall_tau(a, b), kendall_tau(a[:0], b[:0]), spearman(a, b), top_k_intersection(a, b, 2)
    finally:
        torch.set_default_device(None)
    assert all(values.device.type == "cpu" for values in found)
    assert torch.equal(found[0], expected)


def test_tau_through_a_scipy_without_axes_is_the_same(monkeypatch):
    a, b = drawn(9, 30).round(), drawn(9, 30, seed=1).round()
    a[0], b[1, 3] = 2.0, torch.nan
    expected = torch.tensor([stats.kendalltau(u, v).statistic for u, v in zip(a.numpy(), b.numpy())])
    assert expected.isnan().tolist() == [True, True] + 7 * [False]
    torch.set_default_device("meta")
    try:
        for along in {maps._ALONG_AN_AXIS, False}:
            monkeypatch.setattr(maps, "_ALONG_AN_AXIS", along)
            torch.testing.assert_close(kendall_tau(a, b), expected, rtol=0, atol=1e-12, equal_nan=True)
            assert kendall_tau(a[:0], b[:0]).device.type == "cpu"
    finally:
        torch.set_default_device(None)


def test_top_k_against_sets():
    a, b = drawn(6, 3, 8), drawn(6, 3, 8, seed=1)
    for k in (1, 5, 24):
        for n in range(6):
            tops = [set(maps[n].flatten().argsort(descending=True)[:k].tolist()) for maps in (a, b)]
            assert float(top_k_intersection(a, b, k)[n]) == pytest.approx(len(tops[0] & tops[1]) / k)
    assert top_k_intersection(a, a, 7).tolist() == [1.0] * 6


def test_of_equal_values_the_first_are_largest():
    a = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert float(top_k_intersection(a, torch.tensor([[5.0, 4.0, 0.0, 0.0]]), 2)) == 1
    assert float(top_k_intersection(a, torch.tensor([[0.0, 0.0, 5.0, 4.0]]), 2)) == 0


def test_top_k_refuses_more_than_there_are_and_knows_no_nan():
    with pytest.raises(InputError, match="1 to 4"):
        top_k_intersection(torch.zeros(1, 4), torch.zeros(1, 4), 5)
    assert bool(top_k_intersection(torch.tensor([[1.0, float("nan")]]), torch.zeros(1, 2), 1).isnan())
