"""GradCAM: identities with CAM, its formula, layers by name and in every layout."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks.sharing import sharing
from pellucid.interpreters import CAM, GradCAM, GradCAMPlusPlus
from pellucid.models import SmallCNN, adapt
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, global_seed

from .networks import BOTH, Plain, Y, filled, pictures


@pytest.fixture
def images() -> Tensor:
    return pictures()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_pooled_head_cam_is_u_times_grad_cam_and_its_mean_the_logit(dtype):
    with global_seed(0):
        network = SmallCNN().build(1, (28, 20), 10).to(dtype).eval()
    network.head = nn.Linear(100, 10).to(dtype)  # with a bias
    x, y = Stream(1).uniform(torch.empty(6, 0, dtype=dtype), (1, 28, 20)), torch.arange(6)
    cam, grad = CAM()(network, x, y), GradCAM(relu=False)(network, x, y)
    u = cam.shape[1] * cam.shape[2]
    assert float((cam - u * grad).abs().max() / cam.abs().max()) < 1e-6
    torch.testing.assert_close(GradCAM()(network, x, y), grad.clamp(min=0))
    with torch.no_grad():
        logits = network(x).gather(1, y[:, None])[:, 0]
    assert float((cam.mean((1, 2)) + network.head.bias.detach()[y] - logits).abs().max()) < 1e-5


def test_it_is_its_formula(images):
    network = filled(Plain())
    with torch.no_grad():
        features = network.second(functional.relu(network.first(images)))
    leaf = features.clone().requires_grad_(True)
    logits = network.last(torch.tanh(network.hidden(functional.relu(leaf).mean((2, 3)))))
    slope = torch.autograd.grad(logits.gather(1, Y[:, None]).sum(), leaf)[0]
    expected = torch.zeros(4, 4, 6, dtype=torch.float64)
    for n in range(4):
        for k in range(5):
            expected[n] += slope[n, k].mean() * features[n, k]
    found = GradCAM(layer="seen", relu=False)(adapt(network), images, Y)
    torch.testing.assert_close(found, expected)
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.parametrize("method", [GradCAM(layer="seen"), GradCAMPlusPlus(layer="seen", relu=False)])
@pytest.mark.parametrize(("layout", "prefix"), [("channels_last", 0), ("tokens", 0), ("tokens", 1), ("tokens", 5)])
def test_the_same_network_in_another_layout_gives_the_same_map(images, method, layout, prefix):
    expected = method(adapt(filled(Plain())), images, BOTH)
    assert float(expected.abs().max()) > 0
    twin = adapt(filled(Plain(layout, prefix)))
    torch.testing.assert_close(method(twin, images, BOTH), expected)
    site = method.site(twin, images)
    assert (site.layer, site.layout.kind, site.layout.prefix) == ("seen", layout, prefix)
    assert (site.layout.height, site.layout.width) == (4, 6)


def test_a_layer_by_name_is_the_declared_map(images):
    class Declared(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = (
                nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3)),
                nn.Linear(5, 3),
            )

        def features(self, x: Tensor) -> Tensor:
            return self.body(x)

    network = filled(Declared())
    for method in (GradCAM, GradCAMPlusPlus):
        expected = method()(network, images, BOTH)
        torch.testing.assert_close(method(layer="body.2")(network, images, BOTH), expected)
        torch.testing.assert_close(method(layer="body")(sharing(network), images, BOTH), expected)
        torch.testing.assert_close(method()(sharing(network), images, BOTH), expected)
    assert str(GradCAM().site(network, images)) == "the last feature map, channels first, a grid of 6x10"
