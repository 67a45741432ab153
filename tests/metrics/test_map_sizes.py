"""Distances and sparsity of maps, whether they add up, and how log-probabilities are spread."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.interpreters import CAM, IntegratedGradients
from pellucid.metrics import (
    completeness_error,
    log_probability_histogram,
    map_size,
    saliency_distance,
    sparsity,
)
from pellucid.models import SmallCNN, adapt
from pellucid.rng import Stream, global_seed


def drawn(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return Stream(seed).normal(torch.empty(n, 0, dtype=torch.float64), shape)


def test_distances_are_their_formulas():
    a, b = drawn(3, 2, 4), drawn(3, 2, 4, seed=1)
    for n in range(3):
        u, v = a[n].flatten(), b[n].flatten()
        gap = u / u.abs().max() - v / v.abs().max()
        assert float(saliency_distance(a, b)[n]) == pytest.approx(float(gap.abs().mean()))
        raw = float((u - v).square().mean().sqrt())
        assert float(saliency_distance(a, b, p=2, scaling="none")[n]) == pytest.approx(raw)
        mass = u / u.abs().mean() - v / v.abs().mean()
        assert float(saliency_distance(a, b, scaling="mass")[n]) == pytest.approx(float(mass.abs().mean()))
        assert float(map_size(a)[n]) == pytest.approx(float(u.abs().mean()))


def test_scaled_distances_do_not_see_the_unit_and_zero_maps_stay_zero():
    a, b = drawn(2, 6), drawn(2, 6, seed=1)
    torch.testing.assert_close(saliency_distance(a, b), saliency_distance(1000 * a, 0.01 * b))
    assert saliency_distance(a, 3 * a).abs().max() < 1e-12
    assert saliency_distance(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0.0]
    assert bool(saliency_distance(a, b.index_fill(1, torch.tensor([2]), torch.nan)).isnan().all())
    for wrong in ({"scaling": "median"}, {"p": 3}):
        with pytest.raises(InputError, match="p must be 1 or 2, scaling one of none, maximum, mass"):
            saliency_distance(a, b, **wrong)


def test_the_gini_index_is_its_formula_and_knows_its_ends():
    maps = drawn(5, 3, 7)
    for n in range(5):
        values = sorted(maps[n].abs().flatten().tolist())
        count, total = len(values), sum(values)
        by_hand = 1 - 2 * sum(v / total * (count - k + 0.5) / count for k, v in enumerate(values, 1))
        assert float(sparsity(maps)[n]) == pytest.approx(by_hand)
    one = torch.zeros(1, 10)
    one[0, 3] = -2
    assert float(sparsity(one)) == pytest.approx(0.9)
    assert float(sparsity(torch.ones(1, 10))) == pytest.approx(0)
    assert bool(sparsity(torch.zeros(1, 4)).isnan())
    assert sparsity(torch.full((2, 784), 0.1)).tolist() == [0.0, 0.0], "no rounding makes it less, or more"
    assert sparsity(torch.full((2, 3), -1e-45)).tolist() == [0.0, 0.0]
    assert bool(sparsity(torch.tensor([[1.0, torch.nan], [1.0, torch.inf]])).isnan().all())
    torch.testing.assert_close(sparsity(maps), sparsity(-50 * maps.flip(2)))


def test_maps_that_add_up_have_no_error_and_others_theirs():
    maps, score = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]]), torch.tensor([6.5, 1.5])
    found = completeness_error(maps, score, torch.tensor([0.5, 1.0]))
    assert found.error.tolist() == [0.0, 0.5]
    assert found.share.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="scores"):
        completeness_error(maps, score[:1])
    with pytest.raises(InputError, match="mean or sum"):
        completeness_error(maps, score, positions="average")


def test_what_is_measured_keeps_no_graph_and_takes_maps_of_any_shape():
    maps, score, start = (drawn(*shape, seed=len(shape)).requires_grad_(True) for shape in ((3, 2, 4, 5), (3,), (3, 1)))
    found = completeness_error(maps, score, start[:, 0], positions="mean")
    assert not any(values.requires_grad for values in found)
    sums, gaps = maps.detach().sum((1, 2, 3)).tolist(), (score - start[:, 0]).tolist()
    for n, (total, gap) in enumerate(zip(sums, gaps)):
        error = abs(total / 40 - gap)
        assert float(found.error[n]) == pytest.approx(error)
        assert float(found.share[n]) == pytest.approx(error / abs(gap))
    with pytest.raises(InputError, match="one number or"):
        completeness_error(maps, score, start)


def test_cam_adds_up_to_the_logit_but_for_the_bias_of_the_head():
    with global_seed(0):
        pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        network = adapt(pooled, feature_layer="0", head="3").double().eval()
    x, y = Stream(1).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 6, 5)), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        score = network(x).gather(1, y[:, None])[:, 0]
    maps, bias = CAM()(network, x, y), network.head.bias.detach()[y]
    assert float(completeness_error(maps, score, bias, positions="mean").error.max()) < 1e-12
    torch.testing.assert_close(completeness_error(maps, score, positions="mean").error, bias.abs())


def test_cam_and_integrated_gradients_add_up():
    with global_seed(0):
        network = SmallCNN(filters=(4, 6, 8)).build(1, (16, 12), 3).double().eval()
    x, y = Stream(1).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 16, 12)), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        score = network(x).gather(1, y[:, None])[:, 0]
        start = network(torch.zeros_like(x)).gather(1, y[:, None])[:, 0]
    assert float(completeness_error(CAM()(network, x, y), score, positions="mean").error.max()) < 1e-12
    method = IntegratedGradients(steps=400)
    found, own = completeness_error(method(network, x, y), score, start), method.attribution(network, x, y)
    assert float((found.error / start.abs().add(1)).max()) < 0.01
    torch.testing.assert_close(found.error, own.completeness_error)


def test_histogram_counts_everything_once():
    values = torch.tensor([[-0.5, -50.0, 0.0], [-60.0, -1e-9, -49.999]])
    found = log_probability_histogram(values, bins=5)
    assert found.edges.tolist() == pytest.approx([-50, -40, -30, -20, -10, 0])
    assert found.counts.tolist() == [2, 0, 0, 0, 3]
    assert (found.below, found.above) == (1, 0)
    assert log_probability_histogram(found.edges, bins=5).counts.tolist() == [1, 1, 1, 1, 2], "edges open their bin"
    assert int(log_probability_histogram(values, low=-800.0).counts.sum()) == 6
    for wrong in ({"bins": 0}, {"low": 0.0}, {"low": float("-inf")}, {"high": float("nan")}):
        with pytest.raises(InputError, match="at least one bin"):
            log_probability_histogram(values, **wrong)
    with pytest.raises(InputError, match="NaN"):
        log_probability_histogram(values.log())


def test_histogram_is_numpys_with_the_rest_beside_it():
    values = -70 * Stream(3).uniform(torch.empty(40, 0, dtype=torch.float64), (10,)).square()
    values[0] = -torch.inf  # a probability of 0
    found = log_probability_histogram(values.float(), bins=37, low=-50.0, high=-2.0)
    counts, edges = np.histogram(values.float().double().numpy(), bins=37, range=(-50.0, -2.0))
    np.testing.assert_allclose(found.edges.numpy(), edges, rtol=1e-14)
    assert found.counts.tolist() == counts.tolist()
    assert min(found.below, found.above) > 10
    assert int(found.counts.sum()) + found.below + found.above == 400
    assert log_probability_histogram(values[:0]).counts.tolist() == [0] * 50
