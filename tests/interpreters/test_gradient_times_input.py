"""The gradient times the image: closed forms on linear and quadratic scores, and its derivatives."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import frozen
from pellucid.interpreters import Gradient, GradientTimesInput, IntegratedGradients
from pellucid.maths import counted
from pellucid.models import adapt
from pellucid.rng import Stream

Y = torch.tensor([0, 1, 2, 1])
SCORES = ("logit", "log_probability", "cross_entropy", "certainty")


@pytest.fixture
def images() -> Tensor:
    return Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 3, 4))


def smooth() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.3).view_as(p))
    return network


def test_of_a_linear_network_it_is_weight_times_pixel_and_adds_up(linear, images):
    network = linear(classes=3)
    maps = GradientTimesInput()(network, images, Y)
    torch.testing.assert_close(maps, network.weight.detach()[Y].view_as(images) * images, rtol=0, atol=1e-12)
    own = network(images).gather(1, Y[:, None])[:, 0].detach() - network.bias.detach()[Y]
    torch.testing.assert_close(maps.sum((1, 2, 3)), own)
    torch.testing.assert_close(maps, IntegratedGradients(steps=1)(network, images, Y))


def test_the_image_counts_in_its_own_units_whatever_the_networks_normalisation(images):
    """Of f = sum ((x - mean) / std)^2 it is 2 x (x - mean) / std^2, not 2 ((x - mean) / std)^2."""

    class Quadratic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).square().sum(1, keepdim=True) * torch.ones(3, dtype=x.dtype)

    maps = GradientTimesInput()(adapt(Quadratic().double(), mean=0.25, std=0.5).double(), images, Y)
    torch.testing.assert_close(maps, 2 * images * (images - 0.25) / 0.25)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_and_several_targets_from_one_forward(images, score):
    network, target = smooth(), torch.stack([Y, (Y + 1) % 3, Y], 1)
    with counted() as passes:
        maps = GradientTimesInput(score=score)(adapt(network), images, target)
    assert (passes.forward, passes.backward) == (4, 12)
    assert maps.shape == (4, 3, 1, 3, 4)
    for column in range(3):
        leaf = images.clone().requires_grad_(True)
        logs, classes = network(leaf).log_softmax(1), target[:, column, None]
        value = {
            "logit": lambda leaf=leaf, classes=classes: network(leaf).gather(1, classes),
            "log_probability": lambda logs=logs, classes=classes: logs.gather(1, classes),
            "cross_entropy": lambda logs=logs, classes=classes: -logs.gather(1, classes),
            "certainty": lambda logs=logs: logs,
        }[score]()
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        torch.testing.assert_close(maps[:, column], slope * images, rtol=0, atol=1e-12)


def test_black_pixels_have_no_part_in_it(images):
    images[:, :, 1] = 0
    maps = GradientTimesInput()(smooth(), images, Y)
    assert not bool(maps[:, :, 1].any())
    assert float(Gradient()(smooth(), images, Y)[:, :, 1].abs().min()) > 0


@pytest.mark.parametrize("score", SCORES)
def test_derivatives_go_through_both_factors(images, score):
    network, x = smooth(), images[:2].clone().requires_grad_(True)

    def maps(v: Tensor) -> Tensor:
        return GradientTimesInput(score=score)(network, v, Y[:2], create_graph=True)

    assert torch.autograd.gradcheck(maps, x)
    assert not GradientTimesInput(score=score)(network, x, Y[:2]).requires_grad
    maps(images[:2]).square().sum().backward()  # images without a gradient: the weights' remains
    assert all(float(network[i].weight.grad.abs().max()) > 0 for i in (1, 3))


def test_the_inner_door_takes_points_outside_the_box_and_the_outer_refuses_them(linear, images):
    network = linear(classes=3)
    with frozen(network):
        maps = GradientTimesInput().maps(network, images - 2, Y)
    torch.testing.assert_close(maps, network.weight.detach()[Y].view_as(images) * (images - 2))
    with pytest.raises(InputError, match="images must lie"):
        GradientTimesInput()(network, images - 2, Y)
    with pytest.raises(InputError, match=r"targets must be 0\.\.2; found 3"):
        GradientTimesInput()(network, images, torch.full((4,), 3))
