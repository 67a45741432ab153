import pytest
import torch
from torch import nn

from pellucid.errors import InputError, SpecError
from pellucid.models import RossCNN, SmallCNN
from pellucid.rng import global_seed


@pytest.fixture
def network():
    with global_seed(0):
        return RossCNN().build(1, (28, 28), 10)


def test_layers_are_the_printed_ones(network):
    kinds = [type(layer) for layer in [*network.convolutions, *network.dense]]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert kinds == [*block, *block, nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    for layer, (inputs, outputs) in zip(network.convolutions[::4], ((1, 32), (32, 64))):
        assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (inputs, outputs, (5, 5))
        assert (layer.stride, layer.padding, layer.bias) == ((1, 1), (2, 2), None)
    hidden, last = network.dense[1], network.dense[5]
    assert (hidden.in_features, hidden.out_features, hidden.bias) == (7 * 7 * 64, 1024, None)
    assert (last.in_features, last.out_features) == (1024, 10)
    assert last.bias is not None
    assert network.dense[4].p == 0.5
    assert network.head is None


def test_trainable_parameters(network):
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == 800 + 32 + 51200 + 64 + 3211264 + 1024 + 10240 + 10


def test_batch_norm_shifts_but_does_not_scale(network):
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) == 3
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with global_seed(1):
        nn.functional.cross_entropy(network.train()(x), torch.arange(8)).backward()
    for norm in norms:
        assert (norm.eps, norm.momentum) == (1e-3, 0.1)
        assert (norm.weight == 1).all()
        assert norm.weight.grad is None
        assert norm.bias.grad is not None
        assert norm.bias.grad.abs().sum() > 0
        assert norm.num_batches_tracked == 1


def test_initial_weights_are_uniform_within_glorots_bound(network):
    fans = (
        (network.convolutions[0], 25, 800),
        (network.convolutions[4], 800, 1600),
        (network.dense[1], 3136, 1024),
    )
    for layer, fan_in, fan_out in fans:
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.97 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.1)
    assert (network.dense[5].bias == 0).all()


def test_the_map_after_the_second_pooling(network):
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    network.eval()
    features = network.feature_map(x)
    assert features.shape == (2, 64, 7, 7)
    assert (features >= 0).all()
    torch.testing.assert_close(network.classify(features), network(x))


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (30, 21), (4, 5)])
def test_other_sizes(size):
    with global_seed(0):
        network = RossCNN(filters=(2, 3), hidden=4).build(3, size, 5).eval()
    assert network(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_images_that_pooling_would_leave_nothing_of_are_refused():
    with pytest.raises(SpecError, match="model ross_cnn needs images of at least 4x4 pixels, not 3x8"):
        RossCNN().build(1, (3, 8), 10)


@pytest.mark.parametrize("spec", [RossCNN(hidden=10**15), RossCNN(hidden=10**18), SmallCNN(filters=(16, 10**15, 100))])
def test_absurd_widths_are_refused(spec):
    with pytest.raises(SpecError, match="cannot be built with these sizes"):
        spec.build(1, (8, 8), 10)


@pytest.mark.parametrize("spec", [RossCNN(filters=(2, 2), hidden=4), SmallCNN(filters=(2, 2, 2))])
def test_images_of_other_channels_are_refused(spec):
    with pytest.raises(InputError, match=r"takes images \(N, 1, H, W\); got shape \(2, 3, 8, 8\)"):
        spec.build(1, (8, 8), 10)(torch.zeros(2, 3, 8, 8))
