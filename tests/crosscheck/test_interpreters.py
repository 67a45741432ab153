"""Maps against captum and against the printed formulas, written out in loops."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import CAM, Gradient
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive


class Network(Classifier):
    """ReLU, a stride, a head with a bias: what the formulas meet in practice."""

    def __init__(self) -> None:
        super().__init__(mean=(0.4, 0.5), std=(0.2, 0.3))
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(x)))


@pytest.fixture(scope="module")
def network() -> Network:
    model = Network().double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(Stream(derive(3, name)).normal(like, tuple(p.shape))[0])
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return Stream(5).uniform(torch.empty(6, 0, dtype=torch.float64), (2, 8, 6))


TARGET = torch.tensor([0, 1, 2, 2, 1, 0])


def test_gradient_is_captum_saliency(network: Network, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    theirs = attr.Saliency(network).attribute(images.clone().requires_grad_(True), target=TARGET, abs=False)
    ours = Gradient()(network, images, TARGET)
    assert float(ours.abs().max()) > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_gradients_of_probabilities_are_captum_saliency(network: Network, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    saliency = attr.Saliency(lambda x: functional.log_softmax(network(x), 1))
    theirs = saliency.attribute(images.clone().requires_grad_(True), target=TARGET, abs=False)
    torch.testing.assert_close(Gradient(score="log_probability")(network, images, TARGET), theirs, rtol=0, atol=1e-8)
    torch.testing.assert_close(Gradient(score="cross_entropy")(network, images, TARGET), -theirs, rtol=0, atol=1e-8)


def test_gradient_of_certainty_is_the_sum_over_classes(network: Network, images: Tensor) -> None:
    every = torch.arange(3).expand(6, 3)
    parts = Gradient(score="log_probability")(network, images, every)
    whole = Gradient(score="certainty")(network, images, TARGET)
    torch.testing.assert_close(whole, parts.sum(1), rtol=0, atol=1e-8)


def test_cam_is_its_formula(network: Network, images: Tensor) -> None:
    maps = CAM()(network, images, TARGET)
    with torch.no_grad():
        features = network.features((images - network.mean) / network.std)
        logits, weight, bias = network(images), network.head.weight.tolist(), network.head.bias.tolist()
    assert maps.shape == (6, 4, 3)
    for n in range(6):
        c = int(TARGET[n])
        for i in range(4):
            for j in range(3):
                by_hand = sum(weight[c][k] * float(features[n, k, i, j]) for k in range(4))
                assert float(maps[n, i, j]) == pytest.approx(by_hand, abs=1e-10)
        assert float(maps[n].mean()) + bias[c] == pytest.approx(float(logits[n, c]), abs=1e-10)


def test_cam_of_pooled_heads_is_captum_layer_grad_cam(network: Network, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    theirs = attr.LayerGradCam(network, network.second).attribute(images, target=TARGET, relu_attributions=False)
    u = 4 * 3  # GradCAM of a network with a pooled linear head is CAM / u
    torch.testing.assert_close(CAM()(network, images, TARGET) / u, theirs[:, 0].detach(), rtol=0, atol=1e-8)
