"""Which layer is read: the choice in foreign networks, graphs and hooks, networks that are hard to look into."""

import contextlib
import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError, SpecError
from pellucid.guard import frozen, recording
from pellucid.interpreters import GradCAM, GradCAMPlusPlus
from pellucid.interpreters.layer import read
from pellucid.maths import counted
from pellucid.models import adapt
from pellucid.models.classifier import Classifier

from .networks import BOTH, Plain, WithToken, Y, filled, pictures


@pytest.fixture
def images() -> Tensor:
    return pictures()


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


def test_looking_for_the_layer_costs_two_images_however_many_layers_there_are(images):
    network = adapt(filled(WithToken(blocks=5)))
    with counted() as passes:
        assert GradCAM().site(network, images).layer == "blocks.3"
    assert passes.forward == 3  # and one that reads the map


def test_a_network_whose_image_is_detached_on_the_way_has_a_last_map_too(images):
    class Detaches(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((255 * x).round().detach() / 255)

    network = adapt(filled(Detaches()))
    assert GradCAM().site(network, images).layer == "seen"
    expected = GradCAM(relu=False)(adapt(filled(Plain())), (255 * images).round() / 255, Y)
    torch.testing.assert_close(GradCAM(relu=False)(network, images, Y), expected)


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


class InPlace(Classifier):
    """A declared feature map, on which what follows works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(4, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def classify(self, f: Tensor) -> Tensor:
        return self.last(functional.relu_(f).mean((2, 3)))


def test_a_declared_map_is_read_before_what_follows_writes_into_it(images):
    network = filled(InPlace())
    with torch.no_grad():
        features = network.body(images)
        weights = (network.last.weight[Y][:, :, None, None] * (features > 0)).mean((2, 3), keepdim=True) / 96
    expected = (weights * features).sum(1)
    assert bool((features < 0).any())
    method, together = GradCAM(relu=False), sharing(network)
    together(images)  # remembers the feature map too
    for model in (network, together):
        torch.testing.assert_close(method(model, images, Y), expected)
        torch.testing.assert_close(method(model, images, Y, create_graph=True).detach(), expected)


class SharedReLU(nn.Module):
    """One ReLU module run twice: at the end of all, or of a branch."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.relu, self.last, self.residual = nn.ReLU(), nn.Linear(4, 3), residual

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        after = self.relu(self.second(x))
        return self.last((x + after if self.residual else after).mean((2, 3)))


def test_a_layer_that_runs_again_counts_where_it_ends_last(images):
    assert GradCAM().site(adapt(filled(SharedReLU(False))), images).layer == "relu"
    # its last run is a branch only; the scores depend on its first run too
    assert GradCAM().site(adapt(filled(SharedReLU(True))), images).layer == "first"


class Windows(nn.Module):
    """Works on four windows of every image, or with the tokens before the images: no batch of N comes out."""

    def __init__(self, tokens_first: bool) -> None:
        super().__init__()
        self.patch, self.inside, self.last = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 3)
        self.tokens_first = tokens_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        if self.tokens_first:
            return self.last(torch.tanh(self.inside(x.flatten(2).permute(2, 0, 1))).mean(0))
        windows = x.view(-1, 8, 2, 2, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(len(x) * 4, 6, 8)
        return self.last(torch.tanh(self.inside(windows)).view(len(x), 24, 8).mean(1))


@pytest.mark.parametrize("tokens_first", [False, True])
def test_what_has_not_one_row_per_image_is_no_map(images, tokens_first):
    network = adapt(filled(Windows(tokens_first)))
    assert GradCAM().site(network, images[:2]).layer == "patch"
    assert GradCAM()(network, images, Y).shape == (4, 4, 6)
    with pytest.raises(InputError, match=r"'inside' gives .* for 4 images of 16x24.*layers that would do: patch"):
        GradCAM(layer="inside")(network, images, Y)


def test_a_network_in_training_learns_nothing_from_looking_for_a_layer(images):
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.pooled = nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.BatchNorm1d(4)
            self.last = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.pooled(self.norm(self.first(x)).mean((2, 3))))

    module = filled(Normed())
    network = adapt(module).train()
    maps = GradCAM(relu=False)(network, images, Y, create_graph=True)
    assert int(module.norm.num_batches_tracked) == 1
    assert network.training
    assert module.norm.training
    maps.square().sum().backward()
    assert float(module.first.weight.grad.abs().max()) > 0


def test_the_layer_does_not_hang_on_the_images(images):
    bare = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(4, 3),
    )  # fmt: skip
    network = adapt(filled(bare))
    with_black = torch.cat([torch.zeros_like(images[:1]), images[1:]])  # without a bias, a black image excites nothing
    maps = GradCAM(relu=False)(network, images, BOTH)
    assert GradCAM().site(network, with_black) == GradCAM().site(network, images)
    torch.testing.assert_close(GradCAM(relu=False)(network, with_black, BOTH)[1:], maps[1:])
    for method in (GradCAM(), GradCAMPlusPlus(), GradCAM(layer="0")):
        assert method(network, images[:0], Y[:0]).shape == (0, 8, 12)
        assert method(network, images[:0], BOTH[:0]).shape == (0, 2, 8, 12)


def test_the_last_feature_map_of_a_network_that_has_none_over_the_image_is_refused(images):
    class Flat(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return x.flatten(1)

        def classify(self, f: Tensor) -> Tensor:
            return f[:, :3]

    with pytest.raises(InputError, match=r"the network's last feature map is \(4, 384\) for 4 images of 16x24"):
        GradCAM()(Flat(), images, Y)
    with pytest.raises(InputError, match=r"layer 'second' gives .*; or name the layout"):
        GradCAM(layer="second", layout="tokens")(adapt(filled(Plain())), images, Y)


def test_where_activations_are_checkpointed_it_says_so(images):
    class Checkpointed(Plain):
        def forward(self, x: Tensor) -> Tensor:
            maps = checkpoint(lambda images: self.second(torch.tanh(self.first(images))), x, use_reentrant=False)
            return self.last(torch.tanh(self.hidden(torch.tanh(self.seen(maps)).mean((2, 3)))))

    network = adapt(filled(Checkpointed()))
    assert GradCAM()(network, images, Y).shape == (4, 4, 6)  # the layer above, which is not run again
    for method in (GradCAM(layer="first"), GradCAMPlusPlus(layer="first")):
        with pytest.raises(InputError, match=r"first lies where activations are checkpointed.*switch"):
            method(network, images, Y)


def test_foreign_networks_are_read_the_same_through_a_shared_forward(images):
    for module in (Plain(), Plain("channels_last"), WithToken()):
        network = adapt(filled(module))
        for method in (GradCAM(relu=False), GradCAMPlusPlus(relu=False)):
            torch.testing.assert_close(method(sharing(network), images, BOTH), method(network, images, BOTH))
            assert method.site(sharing(network), images) == method.site(network, images)
            together, x = sharing(network), images.clone().requires_grad_(True)
            together(x)  # remembered, so that a hook on it would see nothing
            named = replace(method, layer=method.site(network, images).layer)
            maps = named.maps(together, x, BOTH, create_graph=True)
            torch.testing.assert_close(maps.detach(), method(network, images, BOTH))


def test_a_named_layer_that_the_scores_ignore_is_said(images, caplog):
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.aside, self.last = nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(1, 3, 3, 2, 1), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.seen(x).mean((2, 3)) + 0 * self.aside(x).mean((2, 3)))

    with caplog.at_level("WARNING", logger="pellucid.interpreters"):
        maps = GradCAM(layer="aside")(adapt(filled(Aside())), images, torch.tensor([0, 1, 2, 1]))
    assert float(maps.abs().max()) == 0
    assert "do not depend on the map of layer aside" in caplog.text
