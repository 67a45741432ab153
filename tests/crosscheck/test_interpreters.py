"""Maps against captum and zennit, and against the printed formulas, written out in loops."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import (
    CAM,
    GradCAM,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    GuidedGradCAM,
    IntegratedGradients,
    SmoothGrad,
)
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


# ------------------------------------------------------------------- what came after plain gradients and CAM


class Modules(Network):
    """The same with ReLUs that are modules, as captum's guided methods need them."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.other_relu = nn.ReLU(), nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        return self.other_relu(self.second(self.relu(self.first(x))))


@pytest.fixture(scope="module")
def modules() -> Modules:
    model = Modules().double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(Stream(derive(3, name)).normal(like, tuple(p.shape))[0])
    return model


@pytest.mark.parametrize("relu", [False, True])
def test_grad_cam_is_captums(modules: Modules, images: Tensor, relu: bool) -> None:
    attr = pytest.importorskip("captum.attr")
    for layer, name in ((modules.second, "second"), (modules.first, "first")):
        theirs = attr.LayerGradCam(modules, layer).attribute(images, target=TARGET, relu_attributions=relu)[:, 0]
        ours = GradCAM(layer=name, relu=relu)(modules, images, TARGET)
        assert float(ours.abs().max()) > 1e-3
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-8)


def test_guided_methods_are_captums(modules: Modules, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    leaf = images.clone().requires_grad_(True)
    theirs = attr.GuidedBackprop(modules).attribute(leaf, target=TARGET)
    ours = GuidedBackprop()(modules, images, TARGET)
    assert float((ours - Gradient()(modules, images, TARGET)).abs().max()) > 1e-3
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-8)
    both = attr.GuidedGradCam(modules, modules.second).attribute(leaf, target=TARGET, interpolate_mode="bilinear")
    found = GuidedGradCAM(layer="second")(modules, images, TARGET)
    torch.testing.assert_close(found, both.detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("rule", "method"), [("right", "riemann_right"), ("midpoint", "riemann_middle")])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_integrated_gradients_are_captums(
    network: Network, images: Tensor, rule: str, method: str, start: float
) -> None:
    attr = pytest.importorskip("captum.attr")  # its weights 1/m are float32: exact for powers of two
    theirs, delta = attr.IntegratedGradients(network).attribute(
        images, torch.full_like(images, start), TARGET, n_steps=16, method=method, return_convergence_delta=True
    )
    ours = IntegratedGradients(rule=rule, steps=16, baseline="white" if start else "black")
    found = ours.attribution(network, images, TARGET)
    torch.testing.assert_close(found.maps, theirs.detach(), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.completeness_error, delta.abs(), rtol=0, atol=1e-8)


def test_gradient_times_input_is_captums(network: Network, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    theirs = attr.InputXGradient(network).attribute(images.clone().requires_grad_(True), target=TARGET)
    torch.testing.assert_close(GradientTimesInput()(network, images, TARGET), theirs.detach(), rtol=0, atol=1e-8)


def test_zennits_gradient_integrated_gradients_and_smooth_grad(network: Network, images: Tensor, import_peer) -> None:
    attribution = import_peer("zennit.attribution")
    seed = functional.one_hot(TARGET, 3).to(images)
    with attribution.Gradient(network) as attributor:
        _, theirs = attributor(images.clone(), seed)
    torch.testing.assert_close(Gradient()(network, images, TARGET), theirs, rtol=0, atol=1e-8)
    with attribution.IntegratedGradients(network, n_iter=7) as attributor:
        _, theirs = attributor(images.clone(), seed)
    ours = IntegratedGradients(rule="right", steps=7)(network, images, TARGET)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    with attribution.SmoothGrad(network, noise_level=0.0, n_iter=4) as attributor:
        _, theirs = attributor(images.clone(), seed)
    torch.testing.assert_close(SmoothGrad(noise_level=0, samples=4)(network, images, TARGET), theirs, rtol=0, atol=1e-8)


def test_zennits_smooth_grad_of_the_same_noise(network: Network, images: Tensor, import_peer, monkeypatch) -> None:
    """Theirs counts the image itself as the last of its samples."""
    attribution, samples = import_peer("zennit.attribution"), 5
    rows = torch.arange(len(images))
    handed = iter([Stream(2).pairs(rows, rows * 0 + s).child("noise").normal(images) for s in range(samples)])
    monkeypatch.setattr(torch, "randn_like", lambda like: next(handed))
    with attribution.SmoothGrad(network, noise_level=0.2, n_iter=samples + 1) as attributor:
        _, theirs = attributor(images.clone(), functional.one_hot(TARGET, 3).to(images))
    ours = SmoothGrad(noise_level=0.2, samples=samples)(network, images, TARGET, rng=Stream(2))
    plain = Gradient()(network, images, TARGET)
    assert next(handed, None) is None
    assert float((ours - plain).abs().max()) > 1e-3
    torch.testing.assert_close((samples * ours + plain) / (samples + 1), theirs, rtol=0, atol=1e-8)


def test_zennits_guided_backpropagation(modules: Modules, images: Tensor, import_peer) -> None:
    attribution, composites = import_peer("zennit.attribution"), import_peer("zennit.composites")
    with attribution.Gradient(modules, composites.GuidedBackprop()) as attributor:
        _, theirs = attributor(images.clone(), functional.one_hot(TARGET, 3).to(images))
    ours = GuidedBackprop()(modules, images, TARGET)
    assert float((ours - Gradient()(modules, images, TARGET)).abs().max()) > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_integrated_gradients_from_given_baselines_are_captums(network: Network, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    each, alone = images.flip(0), images[3]
    ours = IntegratedGradients(rule="midpoint", steps=8, score="log_probability")
    theirs = attr.IntegratedGradients(lambda x: functional.log_softmax(network(x), 1))
    for baseline, same in ((each, each), (alone, alone[None])):
        expected = theirs.attribute(images, same, TARGET, n_steps=8, method="riemann_middle")
        found = ours.from_baseline(network, images, TARGET, baseline=baseline)
        assert float(found.abs().max()) > 1e-3
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-8)


def test_smooth_grad_with_the_same_noise_is_zennits(
    network: Network, images: Tensor, import_peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attribution = import_peer("zennit.attribution")
    samples, stream, rows = 5, Stream(11), torch.arange(6)
    steps = iter(range(samples))

    def drawn(like: Tensor) -> Tensor:
        return stream.pairs(rows, torch.full((6,), next(steps))).child("noise").normal(like)

    ours = SmoothGrad(samples=samples, noise_level=0.3)(network, images, TARGET, rng=stream)
    monkeypatch.setattr(torch, "randn_like", drawn)
    with attribution.SmoothGrad(network, noise_level=0.3, n_iter=samples + 1) as attributor:
        _, theirs = attributor(images.clone(), functional.one_hot(TARGET, 3).to(images))
    assert next(steps, None) is None
    plain = Gradient()(network, images, TARGET)  # their last sample is without noise
    assert float((ours - plain).abs().max()) > 1e-3
    torch.testing.assert_close(samples * ours + plain, (samples + 1) * theirs, rtol=0, atol=1e-8)
