"""GradCAM++ against its printed formula, closed forms, and large logits."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError, SpecError
from pellucid.interpreters import GradCAMPlusPlus
from pellucid.models import SmallCNN, adapt
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, global_seed

from .networks import Plain, Y, filled, pictures


@pytest.fixture
def images() -> Tensor:
    return pictures()


def by_hand(features: Tensor, slope: Tensor, score: Tensor) -> Tensor:
    """Return the printed formula, position by position."""
    maps = torch.zeros(len(features), *features.shape[2:], dtype=features.dtype)
    for n in range(len(features)):
        for k in range(features.shape[1]):
            weight, total = 0.0, float(features[n, k].sum())
            for g in slope[n, k].flatten().tolist():
                alpha = g**2 / (2 * g**2 + total * g**3) if g else 0.0
                weight += alpha * max(math.exp(float(score[n])) * g, 0.0)
            maps[n] += weight * features[n, k]
    return maps


def test_plus_plus_is_its_printed_formula(images):
    network = filled(Plain())
    with torch.no_grad():
        features = network.second(functional.relu(network.first(images)))
    leaf = features.clone().requires_grad_(True)
    pooled = functional.relu(leaf).mean((2, 3))
    score = network.last(torch.tanh(network.hidden(pooled))).gather(1, Y[:, None])[:, 0]
    slope = torch.autograd.grad(score.sum(), leaf)[0]
    expected = by_hand(features, slope, score.detach())
    assert float(expected.abs().max()) > 1e-3
    found = GradCAMPlusPlus(layer="seen", relu=False)(adapt(network), images, Y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(GradCAMPlusPlus(layer="seen")(adapt(network), images, Y), expected.clamp(min=0))


@pytest.fixture(scope="module")
def small() -> tuple[Classifier, Tensor, Tensor]:
    with global_seed(0):
        network = SmallCNN().build(1, (28, 28), 10).double().eval()
    x = Stream(1).uniform(torch.empty(5, 0, dtype=torch.float64), (1, 28, 28))
    return network, x, torch.arange(5)


def test_of_a_linear_head_the_weights_have_a_closed_form(small):
    network, x, y = small
    with torch.no_grad():
        features, weight = network.feature_map(x), network.head.weight[y]
        score = network(x).gather(1, y[:, None])
        u = features.shape[2] * features.shape[3]
        closed = score.exp() * weight.clamp(min=0) / (2 + weight / u * features.sum((2, 3)))
        expected = (closed[:, :, None, None] * features).sum(1)
    torch.testing.assert_close(GradCAMPlusPlus(relu=False)(network, x, y), expected)


def test_the_shortcut_is_cam_with_the_negative_weights_at_zero(small):
    network, x, y = small
    with torch.no_grad():
        expected = (network.head.weight[y].clamp(min=0)[:, :, None, None] * network.feature_map(x)).sum(1)
    torch.testing.assert_close(GradCAMPlusPlus(form="shortcut", relu=False)(network, x, y), expected)
    torch.testing.assert_close(GradCAMPlusPlus(form="shortcut")(network, x, y), expected.clamp(min=0))
    with pytest.raises(InputError, match="declares a linear head"):
        GradCAMPlusPlus(form="shortcut")(adapt(filled(Plain())), x[:, :, :16, :24], y % 3)
    with pytest.raises(SpecError, match="name no layer"):
        GradCAMPlusPlus(form="shortcut", layer="convolutions.2")


def test_logits_of_eight_hundred_stay_finite():
    with global_seed(0):
        network = SmallCNN().build(1, (28, 28), 10).eval()
    with torch.no_grad():
        network.head.weight *= 4000
    x = Stream(1).uniform(torch.empty(4, 0), (1, 28, 28))
    with torch.no_grad():
        logits = network(x)
    assert float(logits.abs().max()) > 800
    maps = GradCAMPlusPlus(relu=False)(network, x, torch.arange(10).expand(4, 10))
    assert bool(maps.isfinite().all())
    assert float(maps.abs().max()) > 0
