import pytest
import torch

from pellucid.errors import InputError
from pellucid.guard import frozen
from pellucid.interpreters import CAM
from pellucid.maths import counted
from pellucid.models import RossCNN, SmallCNN
from pellucid.rng import global_seed


@pytest.fixture
def network():
    with global_seed(1):
        return SmallCNN(filters=(3, 4, 5)).build(1, (12, 10), 4).double()


@pytest.fixture
def images(generator):
    return torch.rand(6, 1, 12, 10, generator=generator, dtype=torch.float64)


def test_the_map_weighs_the_channels_and_its_mean_is_the_logit(network, images):
    target = torch.arange(6) % 4
    maps = CAM()(network, images, target)
    assert maps.shape == (6, 3, 3)
    features = network.feature_map(images).detach()
    for n, c in enumerate(target.tolist()):
        expected = sum(network.head.weight[c, k].detach() * features[n, k] for k in range(5))
        torch.testing.assert_close(maps[n], expected)
    torch.testing.assert_close(maps.mean((1, 2)), network(images).gather(1, target[:, None])[:, 0].detach())


def test_the_inner_door_takes_images_outside_the_box(network, images):
    target = torch.arange(6) % 4
    with pytest.raises(InputError, match="images"):
        CAM()(network, images + 1, target)
    with frozen(network):
        maps = CAM().maps(network, images + 1, target)
        assert torch.equal(CAM().maps(network, images, target), CAM()(network, images, target))
    torch.testing.assert_close(maps.mean((1, 2)), network(images + 1).gather(1, target[:, None])[:, 0].detach())
    assert not maps.requires_grad


def test_maps_are_raw(network, images):
    maps = CAM()(network, images, torch.zeros(6, dtype=torch.long))
    assert float(maps.min()) < 0  # neither cut at zero nor scaled


def test_several_targets_cost_one_forward_and_no_backward(network, images):
    target = torch.tensor([[0, 1], [1, 3], [2, 2], [3, 0], [0, 0], [1, 2]])
    with counted() as passes:
        maps = CAM()(network, images, target)
    assert (passes.forward, passes.backward) == (6, 0)
    assert maps.shape == (6, 2, 3, 3)
    for column in range(2):
        torch.testing.assert_close(maps[:, column], CAM()(network, images, target[:, column]))


def test_differentiable_in_image_and_weights_when_asked_and_detached_otherwise(network, images):
    target = torch.zeros(6, dtype=torch.long)
    x = images.clone().requires_grad_(True)
    CAM()(network, x, target, create_graph=True).square().sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert float(network.head.weight.grad[0].abs().sum()) > 0
    assert float(network.head.weight.grad[1:].abs().sum()) == 0
    assert float(network.convolutions[0].weight.grad.abs().sum()) > 0
    assert not CAM()(network, images.clone().requires_grad_(True), target).requires_grad


def test_needs_a_declared_head(images):
    with global_seed(1):
        ross = RossCNN(filters=(2, 2), hidden=4).build(1, (12, 10), 4).double()
    for network in (ross, torch.nn.Flatten()):
        with pytest.raises(InputError, match=f"{type(network).__name__} does not"):
            CAM()(network, images, torch.zeros(6, dtype=torch.long))


def test_targets_beyond_the_classes_are_refused(network, images):
    with pytest.raises(InputError, match=r"targets must be 0\.\.3; found 4"):
        CAM()(network, images, torch.full((6,), 4))
