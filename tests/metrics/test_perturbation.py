import math

import numpy as np
import pytest
import torch

from pellucid.attacks import DeepFool
from pellucid.errors import InputError
from pellucid.metrics import bootstrap_mean, relative_perturbation, rho_adv


@pytest.fixture
def pair(generator):
    x = 0.2 + 0.6 * torch.rand(12, 3, 4, 5, generator=generator, dtype=torch.float64)
    return x, x + 0.05 * torch.randn(12, 3, 4, 5, generator=generator, dtype=torch.float64)


def test_is_the_mean_of_relative_lengths(pair):
    x, changed = (t.numpy() for t in pair)
    terms = [
        math.sqrt(float(((changed[i] - x[i]) ** 2).sum())) / math.sqrt(float((x[i] ** 2).sum())) for i in range(12)
    ]
    np.testing.assert_allclose(relative_perturbation(*pair).numpy(), terms, rtol=1e-12)
    found = rho_adv(*pair, confidence=0.9, seed=3)
    assert found.value == pytest.approx(sum(terms) / 12, rel=1e-12)
    assert found == pytest.approx(bootstrap_mean(terms, 0.9, seed=3), rel=1e-9)
    assert found.low < found.value < found.high


def test_on_a_linear_network_it_is_the_mean_distance_to_the_boundary(linear, pair):
    network, x = linear(classes=2, pixels=60), pair[0]
    w = (network.weight[1] - network.weight[0]).detach()
    distance = (network(x).detach() @ torch.tensor([-1.0, 1.0], dtype=torch.float64)).abs() / w.norm()
    expected = (distance / x.flatten(1).norm(dim=1)).mean()
    made = DeepFool(overshoot=0.0, nudge=1e-9)(network, x, torch.zeros(12, dtype=torch.long))
    assert rho_adv(x, made).value == pytest.approx(float(expected), abs=1e-6)


def test_images_that_did_not_change_have_none(pair):
    assert rho_adv(pair[0], pair[0]) == (0.0, 0.0, 0.0)


def test_lengths_are_of_float64_also_for_half_precision(pair):
    x, changed = (t.half() for t in pair)
    expected = relative_perturbation(x.double(), changed.double())
    assert torch.equal(relative_perturbation(x, changed), expected)


def test_no_image_gives_no_number(pair):
    assert all(math.isnan(v) for v in rho_adv(pair[0][:0], pair[1][:0]))


def test_black_images_and_other_shapes_are_refused(pair):
    x, changed = pair[0].clone(), pair[1]
    x[[3, 5]] = 0
    assert relative_perturbation(x, changed).isnan().nonzero().flatten().tolist() == [3, 5]
    with pytest.raises(InputError, match="2 of 12 images are black"):
        rho_adv(x, changed)
    with pytest.raises(InputError, match=r"must both be \(N, C, H, W\)"):
        rho_adv(x, changed[:5])
