"""GradCAM: identities with CAM, where it looks, how layers lie, and GradCAM++ against its formula."""

import contextlib
import logging
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError, SpecError
from pellucid.guard import frozen, recording
from pellucid.interpreters import CAM, GradCAM, GradCAMPlusPlus
from pellucid.interpreters.layer import read
from pellucid.maths import counted
from pellucid.models import SmallCNN, adapt
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive, global_seed

Y = torch.tensor([0, 1, 2, 1])
BOTH = torch.stack([Y, (Y + 1) % 3], 1)


def filled(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Return the module in float64 with normal weights of its own."""
    with torch.no_grad():
        for name, p in module.double().named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            fan_in = math.prod(p.shape[1:]) if p.ndim > 1 else 4
            p.copy_(Stream(derive(2, name)).normal(like, tuple(p.shape))[0] * gain * fan_in**-0.5)
    return module.eval()


@pytest.fixture
def images() -> Tensor:
    return Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 16, 24))


class Plain(nn.Module):
    """Two convolutions, an in-place ReLU right after the second, and something after pooling that is not linear."""

    def __init__(self, layout: str = "channels_first", prefix: int = 0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1)
        self.seen, self.hidden, self.last = nn.Identity(), nn.Linear(5, 6), nn.Linear(6, 3)
        self.layout, self.prefix = layout, prefix

    def forward(self, x: Tensor) -> Tensor:
        maps = functional.relu(self.second(functional.relu(self.first(x))))
        if self.layout == "channels_first":
            maps = functional.relu(self.seen(maps), inplace=True)
        elif self.layout == "channels_last":
            maps = functional.relu(self.seen(maps.permute(0, 2, 3, 1)), inplace=True).permute(0, 3, 1, 2)
        else:
            n, d, h, w = maps.shape
            tokens = torch.cat([maps.new_full((n, self.prefix, d), 7.0), maps.flatten(2).mT], 1)
            tokens = functional.relu(self.seen(tokens), inplace=True)
            maps = tokens[:, self.prefix :].mT.reshape(n, d, h, w)
        return self.last(torch.tanh(self.hidden(maps.mean((2, 3)))))


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
    assert float((cam.mean((1, 2)) + network.head.bias[y] - logits).abs().max()) < 1e-5


def test_it_is_its_formula(images):
    network = filled(Plain())
    with torch.no_grad():
        features = functional.relu(network.second(functional.relu(network.first(images))))
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


def test_below_the_layer_there_is_no_graph_and_one_forward_does(images):
    network = adapt(filled(Plain()))
    with frozen(network), recording():
        seen = read(network, images.clone().requires_grad_(True), "seen", None, False)
    assert seen.leaf.grad_fn is None
    assert seen.leaf.requires_grad
    with counted() as passes:
        GradCAM(layer="seen")(network, images, BOTH)
    assert (passes.forward, passes.backward) == (4, 8)


def test_a_layer_that_runs_twice_is_taken_at_its_last(images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.last = nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 1, 1), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(torch.tanh(self.shared(self.first(x)))).mean((2, 3)))

    network = filled(Twice())
    with torch.no_grad():
        features = network.shared(torch.tanh(network.shared(network.first(images))))
        expected = (network.last.weight[Y][:, :, None, None] * features).sum(1) / features[0, 0].numel()
    torch.testing.assert_close(GradCAM(layer="shared", relu=False)(adapt(network), images, Y), expected)


class WithToken(nn.Module):
    """A vision transformer in small: patches, a class token, attention over all, scores from the token alone."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, functional.gelu, batch_first=True) for _ in range(blocks)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), 1, 8), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


def test_of_a_foreign_network_the_last_map_through_which_all_scores_pass_is_taken(images, caplog):
    network = adapt(filled(WithToken()))
    with caplog.at_level(logging.INFO, logger="pellucid.interpreters"):
        maps = GradCAM(relu=False)(network, images, BOTH)
    assert maps.shape == (4, 2, 4, 6)
    assert float(maps.abs().max()) > 0
    said = "layer blocks.0 (chosen: the last that all scores depend on), tokens, 1 before a grid of 4x6"
    assert f"maps are read at {said}" in caplog.text
    assert str(GradCAM().site(network, images)) == said
    torch.testing.assert_close(GradCAM(relu=False, layer="blocks.0")(network, images, BOTH), maps)
    assert GradCAM(relu=False, layer="blocks.1")(network, images, Y).abs().max() == 0, "behind the token's last look"


def test_a_branch_is_not_the_whole(images):
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.last = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last((torch.tanh(self.left(x)) + torch.tanh(self.right(x))).mean((2, 3)))

    assert GradCAM().site(adapt(filled(Branches())), images).layer == "first"


def test_refusals_name_layers_that_would_do(images):
    network = adapt(filled(Plain()))
    with pytest.raises(InputError, match="no layer 'nowhere'; it has first, second"):
        GradCAM(layer="nowhere")(network, images, Y)
    with pytest.raises(InputError, match=r"no map over the image.*layers that would do: first, second, seen"):
        GradCAM(layer="hidden")(network, images, Y)
    with pytest.raises(InputError, match="no layer of this network"):
        GradCAM()(adapt(filled(nn.Sequential(nn.Flatten(), nn.Linear(384, 3)))), images, Y)
    with pytest.raises(SpecError, match="name the layer too"):
        GradCAM(layout="tokens")


def test_nothing_is_left_on_the_network(images):
    network = adapt(filled(Plain()))
    for layer in ("seen", "hidden", None):
        with contextlib.suppress(InputError):
            GradCAM(layer=layer)(network, images, Y)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


# ------------------------------------------------------------------------------------------------ GradCAM++


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
        features = functional.relu(network.second(functional.relu(network.first(images))))
    leaf = features.clone().requires_grad_(True)
    pooled = functional.relu(leaf).mean((2, 3))
    score = network.last(torch.tanh(network.hidden(pooled))).gather(1, Y[:, None])[:, 0]
    slope = torch.autograd.grad(score.sum(), leaf)[0]
    expected = by_hand(features, slope, score)
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
