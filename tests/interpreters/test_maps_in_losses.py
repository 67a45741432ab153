"""Maps inside a training loss: derivatives with respect to the weights against finite differences."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import (
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from pellucid.maths.discrepancy import discrepancy, label_free_discrepancy
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive


class Smooth(Classifier):
    """Smooth but for one ReLU, so that every method takes it."""

    def __init__(self) -> None:
        super().__init__(mean=0.4, std=0.5)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.head = nn.Linear(4, 3)

    def features(self, x: Tensor) -> Tensor:
        return functional.softplus(self.second(functional.relu(functional.softplus(self.first(x)) - 0.7)))


@pytest.fixture
def network() -> Smooth:
    model = Smooth().double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(Stream(derive(4, name)).normal(like, tuple(p.shape))[0])
    return model


METHODS = [
    CAM(),
    GradCAM(relu=False),
    GradCAMPlusPlus(),
    Gradient(score="log_probability"),
    GradientTimesInput(),
    GuidedBackprop(),
    IntegratedGradients(steps=2, softplus_beta=1.0),
    SmoothGrad(samples=2),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("form", ["two", "label_free"])
def test_an_interpretability_aware_loss_has_the_right_gradient(network, method, form):
    """CE(x) + gamma D(x, x') as in Boopathy et al. 2020, equation 8, x' a fixed other image."""
    x = Stream(5).uniform(torch.empty(3, 0, dtype=torch.float64), (1, 6, 4))
    after, y, gamma = (x + 0.1 * Stream(6).normal(x)).clamp(0, 1), torch.tensor([0, 2, 1]), 0.5
    positions = "mean" if isinstance(method, (CAM, GradCAM, GradCAMPlusPlus)) else "sum"

    def loss() -> Tensor:
        plain = functional.cross_entropy(network(x), y)
        wanted = torch.stack([y, (y + 1) % 3], 1) if form == "two" else torch.arange(3).expand(3, 3)
        maps = [method(network, images, wanted, rng=Stream(7), create_graph=True) for images in (x, after)]
        if form == "two":
            moved = discrepancy(*maps, 2, positions=positions)
        else:
            moved = label_free_discrepancy(*maps, y, network(after), p=2, positions=positions)
        return plain + gamma * moved.mean()

    loss().backward()
    for number, (name, p) in enumerate(network.named_parameters()):
        direction = Stream(derive(8, number)).normal(torch.empty(1, 0, dtype=torch.float64), tuple(p.shape))[0]
        exact = float((p.grad * direction).sum())
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * 1e-6 * direction
            ends.append(float(loss().detach()))
            with torch.no_grad():
                p -= sign * 1e-6 * direction
        numeric = (ends[0] - ends[1]) / 2e-6
        assert numeric == pytest.approx(exact, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("method", [CAM(), GradCAM(relu=False), IntegratedGradients(steps=2, softplus_beta=1.0)])
def test_second_derivatives_through_such_a_loss(network, method):
    x = Stream(5).uniform(torch.empty(1, 0, dtype=torch.float64), (1, 5, 4)).requires_grad_(True)
    after, y = (x.detach() + 0.1).clamp(0, 1), torch.tensor([1])

    def loss(images: Tensor) -> Tensor:
        pair = torch.tensor([[1, 2]])
        before = method(network, images, pair, create_graph=True)
        other = method(network, after, pair, create_graph=True)
        return functional.cross_entropy(network(images), y) + discrepancy(before, other, 2)

    assert torch.autograd.gradgradcheck(loss, (x,), fast_mode=True, atol=1e-5)
