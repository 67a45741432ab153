"""Guided backpropagation and what is made of it; gradient times input; an attack's difference."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pellucid.attacks import AAI, PGD, IteratedTGSM
from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError
from pellucid.guard import frozen
from pellucid.interpreters import (
    AttackDifference,
    GradCAM,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    GuidedGradCAM,
)
from pellucid.interpreters.heatmap import resize
from pellucid.maths import counted
from pellucid.models import adapt
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive

Y = torch.tensor([0, 1, 2, 1])


class Twin(Classifier):
    """One network in two spellings: ReLU as a shared in-place module, or as a function."""

    def __init__(self, functional_relu: bool, shift: float = 0.0, positive: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1, stride=2)
        self.head, self.relu = nn.Linear(5, 3), nn.ReLU(inplace=True)
        self.functional_relu = functional_relu
        self.double().eval()
        with torch.no_grad():
            for name, p in self.named_parameters():
                like = torch.empty(1, 0, dtype=torch.float64)
                p.copy_(Stream(derive(9, name)).normal(like, tuple(p.shape))[0])
                if name == "first.bias":
                    p += shift
                if positive and name in ("second.weight", "second.bias", "head.weight"):
                    p.abs_()

    def features(self, x: Tensor) -> Tensor:
        relu = functional.relu if self.functional_relu else self.relu
        return relu(self.second(relu(self.first(x))))


@pytest.fixture
def images() -> Tensor:
    return Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 8, 6))


def test_where_all_is_active_and_above_all_is_positive_it_is_the_plain_gradient(images):
    network = Twin(False, shift=50.0, positive=True)
    torch.testing.assert_close(GuidedBackprop()(network, images, Y), Gradient()(network, images, Y))


def test_elsewhere_it_is_another_map(images):
    network = Twin(False)
    guided, plain = GuidedBackprop()(network, images, Y), Gradient()(network, images, Y)
    assert float((guided - plain).abs().max()) > 0.1 * float(plain.abs().max())


def test_spelling_does_not_matter(images):
    torch.testing.assert_close(GuidedBackprop()(Twin(True), images, Y), GuidedBackprop()(Twin(False), images, Y))


def test_networks_without_relu_are_refused(images):
    smooth = adapt(nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3)).double())
    for method in (GuidedBackprop(), GuidedGradCAM()):
        with pytest.raises(InputError, match="ReLUs; none ran"):
            method(smooth, images, Y)


def test_scripted_networks_and_clamps_are_refused_since_their_relus_are_not_seen(images):
    class Clamps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(48, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.last((x.flatten(1) - 0.5).clamp(min=0))

    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    assert GuidedBackprop()(plain, images, Y).shape == images.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scripting is on its way out
        scripted = torch.jit.script(plain)
    for network in (Clamps(), scripted):
        with pytest.raises(InputError, match="ReLUs; none ran"):
            GuidedBackprop()(network, images, Y)


def test_the_rule_is_gone_after_the_map_also_after_a_refusal(images):
    network = Twin(True)
    before = Gradient()(network, images, Y)
    GuidedBackprop()(network, images, Y)
    with pytest.raises(InputError, match="targets"):
        GuidedBackprop()(network, images, Y + 3)
    assert torch.equal(Gradient()(network, images, Y), before)


def test_where_a_forward_pass_is_shared_the_map_is_still_guided(images):
    """The logits, asked for first, were computed without the rule: attacks on maps that keep the label do so."""
    network, leaf = Twin(True), images.clone().requires_grad_(True)
    for method in (GuidedBackprop(), GuidedGradCAM()):
        expected = method(network, images, Y)
        with frozen(network):
            shared = sharing(network)
            shared(leaf)
            found = method.maps(shared, leaf, Y, create_graph=True)
            slope = torch.autograd.grad(shared(leaf).gather(1, Y[:, None]).sum(), leaf)[0]
        torch.testing.assert_close(found.detach(), expected)
        torch.testing.assert_close(slope, Gradient()(network, images, Y), msg="the logits' own gradient is plain")
        moved = AAI(interpreter=method, eps=0.05, steps=2, top_k=4, keep="unchanged")(network, images, Y)
        assert float((moved - images).abs().max()) <= 0.05 + 1e-9


def test_several_targets_cost_one_forward(images):
    network, both = Twin(False), torch.stack([Y, (Y + 1) % 3], 1)
    with counted() as passes:
        maps = GuidedBackprop()(network, images, both)
    assert (passes.forward, passes.backward) == (4, 8)
    for column in (0, 1):
        torch.testing.assert_close(maps[:, column], GuidedBackprop()(network, images, both[:, column]))


def test_the_rule_holds_while_a_network_computes_its_activations_again(images):
    """Checkpointed networks run their ReLUs a second time, in the backward pass."""

    class Frugal(Twin):
        def features(self, x: Tensor) -> Tensor:
            return checkpoint(super().features, x, use_reentrant=False)

    frugal, plain = Frugal(True), Twin(True)
    both = torch.stack([Y, (Y + 1) % 3], 1)
    torch.testing.assert_close(GuidedBackprop()(frugal, images, Y), GuidedBackprop()(plain, images, Y))
    torch.testing.assert_close(GuidedBackprop()(frugal, images, both), GuidedBackprop()(plain, images, both))


def test_guided_grad_cam_is_the_product(images):
    network = Twin(True)
    both = torch.stack([Y, (Y + 1) % 3], 1)
    coarse = GradCAM()(network, images, both)
    wide = torch.stack([resize(coarse[:, m], (8, 6)) for m in range(2)], 1)
    expected = GuidedBackprop()(network, images, both) * wide[:, :, None]
    found = GuidedGradCAM()(network, images, both)
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(GuidedGradCAM()(network, images, Y), expected[:, 0])


def test_gradient_times_input_of_a_linear_network_adds_up_to_the_logit(images):
    network = adapt(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).double(), std=0.5)
    maps = GradientTimesInput()(network, images, Y)
    with torch.no_grad():
        logits, at_zero = network(images), network(torch.zeros_like(images))
    torch.testing.assert_close(maps.sum((1, 2, 3)), (logits - at_zero).gather(1, Y[:, None])[:, 0])


def test_the_difference_leads_to_the_attacks_image(images):
    network = Twin(True)
    for attack in (IteratedTGSM(eps=0.02, steps=3), PGD(norm="l2", eps=0.5, steps=3)):
        with torch.no_grad():
            own = network(images).argmax(1)
        expected = attack(network, images, own, target=Y, rng=Stream(2))
        found = AttackDifference(attack=attack)(network, images, Y, rng=Stream(2))
        torch.testing.assert_close(images + found, expected)
        both = AttackDifference(attack=attack)(network, images, torch.stack([Y, (Y + 1) % 3], 1), rng=Stream(2))
        torch.testing.assert_close(both[:, 0], found)
        assert float((both[:, 1] - found).abs().max()) > 0


def test_the_papers_attack_is_the_default_and_there_is_no_derivative(images):
    assert AttackDifference().attack == IteratedTGSM()
    with pytest.raises(InputError, match="no derivative"):
        AttackDifference()(Twin(True), images, Y, create_graph=True)
