import pytest
import torch
from scipy import stats
from torch.nn import functional

from pellucid.interpreters import CAM
from pellucid.models import SmallCNN
from pellucid.models.boopathy import pad_same
from pellucid.rng import global_seed


def build(*shape, filters=(16, 32, 100), seed=0):
    with global_seed(seed):
        return SmallCNN(filters=filters).build(*shape)


# size, kernel, stride -> left, right: TensorFlow's rule by hand
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "left", "right"),
    [
        (28, 4, 2, 1, 1),
        (14, 4, 2, 1, 1),
        (7, 7, 1, 3, 3),
        (32, 3, 2, 0, 1),
        (16, 3, 2, 0, 1),
        (7, 3, 2, 1, 1),
        (28, 5, 1, 2, 2),
        (8, 4, 1, 1, 2),
        (5, 2, 2, 0, 1),
        (4, 1, 2, 0, 0),
        (1, 7, 1, 3, 3),
    ],
)
def test_same_padding_by_hand(size, kernel, stride, left, right):
    x = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    padded = pad_same(x, kernel, stride)
    assert padded.shape[-1] == size + left + right
    assert torch.equal(padded, functional.pad(x, (left, right, left, right)))
    assert (padded.shape[-1] - kernel) // stride + 1 == -(-size // stride)


def test_height_and_width_are_padded_each_by_its_own_size():
    padded = pad_same(torch.ones(1, 1, 7, 32), 3, 2)
    assert torch.equal(padded, functional.pad(torch.ones(1, 1, 7, 32), (0, 1, 1, 1)))


@pytest.mark.parametrize(("shape", "side"), [((1, (28, 28), 10), 7), ((3, (32, 32), 10), 8)])
def test_the_last_map_has_the_printed_size(shape, side):
    network = build(*shape)
    channels, size, classes = shape
    x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    assert network.feature_map(x).shape == (2, 100, side, side)
    assert network(x).shape == (2, classes)


def test_the_forward_pass_is_the_authors():
    network = build(1, (28, 28), 10, filters=(4, 5, 6)).double()
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second, third = network.convolutions
    h = functional.conv2d(x, first.weight, first.bias, stride=2, padding=1)
    h = functional.conv2d(functional.relu(h), second.weight, second.bias, stride=2, padding=1)
    h = functional.conv2d(functional.relu(h), third.weight, third.bias, padding=3)
    assert (h < 0).any()  # the last map is not cut at zero
    torch.testing.assert_close(network.feature_map(x), h)
    torch.testing.assert_close(network(x), h.mean((2, 3)) @ network.head.weight.T)


def test_parameters():
    network = build(1, (28, 28), 10)
    assert sum(p.numel() for p in network.parameters()) == 272 + 8224 + 156900 + 1000
    assert network.head.bias is None
    assert all(p.requires_grad for p in network.parameters())


def test_the_mean_of_the_cam_is_the_logit():
    network = build(3, (32, 32), 10).double()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = CAM()(network, x, torch.arange(10).expand(2, 10))
    torch.testing.assert_close(maps.mean((2, 3)), network(x).detach())


def test_initial_weights_are_normal_with_variance_one_over_fan_in():
    network = build(3, (32, 32), 10)
    for layer, fan_in in zip([*network.convolutions, network.head], (3 * 16, 16 * 16, 32 * 49, 100)):
        weights = (layer.weight.detach() * fan_in**0.5).flatten()[:20000]
        assert stats.kstest(weights.numpy(), "norm").pvalue > 1e-3
        if layer.bias is not None:
            assert (layer.bias == 0).all()
    assert not torch.equal(build(3, (32, 32), 10, seed=1).head.weight, network.head.weight)
