import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.guard import frozen
from pellucid.interpreters import Gradient
from pellucid.maths import counted

SCORES = ("logit", "log_probability", "cross_entropy", "certainty")


@pytest.fixture
def images(generator):
    return torch.rand(5, 1, 3, 4, generator=generator, dtype=torch.float64)


def closed_form(network, images, target, score):
    """Gradients of the four scores of a softmax regression, one sample at a time."""
    weight, classes = network.weight.detach(), len(network.weight)
    maps = []
    for p, c in zip(network(images).detach().softmax(1), target):
        mean = (p[:, None] * weight).sum(0)
        maps.append(
            {
                "logit": weight[c],
                "log_probability": weight[c] - mean,
                "cross_entropy": mean - weight[c],
                "certainty": weight.sum(0) - classes * mean,
            }[score]
        )
    return torch.stack(maps).view_as(images)


@pytest.mark.parametrize("score", SCORES)
def test_scores_of_a_linear_network_have_their_closed_form(linear, images, score):
    network, target = linear(classes=4), torch.tensor([0, 1, 2, 3, 1])
    maps = Gradient(score=score)(network, images, target)
    torch.testing.assert_close(maps, closed_form(network, images, target, score), rtol=0, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_several_targets_cost_one_forward(linear, images, score):
    network = linear(classes=4)
    target = torch.tensor([[0, 1, 3], [1, 1, 0], [2, 0, 1], [3, 2, 0], [0, 3, 3]])
    with counted() as passes:
        maps = Gradient(score=score)(network, images, target)
    assert (passes.forward, passes.backward) == (5, 15)
    assert maps.shape == (5, 3, 1, 3, 4)
    for column in range(3):
        expected = closed_form(network, images, target[:, column], score)
        torch.testing.assert_close(maps[:, column], expected, rtol=0, atol=1e-12)


def test_the_inner_door_takes_noisy_images_and_leaves_freezing_to_the_caller(linear, images, generator):
    """As SmoothGrad needs it: the mean of maps of noisy images, some of them outside [0, 1]."""
    network, target = linear(classes=4), torch.tensor([0, 1, 2, 3, 1])
    noisy = [images + torch.randn(images.shape, generator=generator, dtype=images.dtype) for _ in range(4)]
    assert min(x.min() for x in noisy) < 0
    assert max(x.max() for x in noisy) > 1
    with pytest.raises(InputError, match="images"):
        Gradient()(network, noisy[0], target)
    interpreter = Gradient(score="cross_entropy")
    with frozen(network):
        smooth = torch.stack([interpreter.maps(network, x, target) for x in noisy]).mean(0)
    expected = torch.stack([closed_form(network, x, target, "cross_entropy") for x in noisy]).mean(0)
    torch.testing.assert_close(smooth, expected, rtol=0, atol=1e-12)
    assert not smooth.requires_grad
    with frozen(network), pytest.raises(InputError, match="targets"):
        interpreter.maps(network, noisy[0], target + 4)
    for score in SCORES:  # on images both doors lead to the same maps
        with frozen(network):
            assert torch.equal(
                Gradient(score=score).maps(network, images, target), Gradient(score=score)(network, images, target)
            )


def test_certainty_is_minus_k_times_the_entropy_against_uniform_and_ignores_the_target(linear, images):
    network = linear(classes=4)
    leaf = images.clone().requires_grad_(True)
    functional.cross_entropy(network(leaf), torch.full((5, 4), 0.25, dtype=torch.float64), reduction="sum").backward()
    for target in (torch.zeros(5, dtype=torch.long), torch.full((5,), 3)):
        torch.testing.assert_close(Gradient(score="certainty")(network, images, target), -4 * leaf.grad)


def smooth() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.3).view_as(p))
    return network


@pytest.mark.parametrize("score", SCORES)
def test_maps_are_differentiable_in_the_image_when_asked(images, score):
    network, target = smooth(), torch.tensor([0, 1])
    x = (0.1 + 0.8 * images[:2]).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: Gradient(score=score)(network, v, target, create_graph=True), x)


def test_maps_are_differentiable_in_the_weights_when_asked_and_detached_otherwise(images):
    network, target = smooth(), torch.zeros(5, dtype=torch.long)
    Gradient()(network, images, target, create_graph=True).square().sum().backward()
    assert all(float(network[i].weight.grad.abs().sum()) > 0 for i in (1, 3))
    network.zero_grad()
    maps = Gradient()(network, images.clone().requires_grad_(True), target)
    assert not maps.requires_grad
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_no_image(linear):
    empty = torch.zeros(0, 1, 3, 4, dtype=torch.float64)
    assert Gradient()(linear(), empty, torch.zeros(0, dtype=torch.long)).shape == (0, 1, 3, 4)
    assert Gradient()(linear(), empty, torch.zeros(0, 2, dtype=torch.long)).shape == (0, 2, 1, 3, 4)


def test_eval_mode_and_the_callers_mode_again_afterwards(images):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.9), nn.Linear(12, 3)).double().train()
    target = torch.zeros(5, dtype=torch.long)
    together = Gradient()(network, images, target)
    torch.testing.assert_close(Gradient()(network, images[:1], target[:1]), together[:1])
    assert network.training
    assert int(network[1].num_batches_tracked) == 0


def test_targets_beyond_the_classes_are_refused(linear, images):
    with pytest.raises(InputError, match=r"targets must be 0\.\.2; found 3"):
        Gradient()(linear(classes=3), images, torch.full((5,), 3))
