import pytest
import torch
from scipy import stats
from torch.nn import functional

from pellucid.errors import SpecError
from pellucid.interpreters import CAM
from pellucid.models import BoopathyWResNet, PoolCNN, SmallCNN
from pellucid.models.boopathy import halved, pad_same, with_zero_channels
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


# ------------------------------------------------------------------------------------------ Pool and Wide Resnet


def made(spec, *shape, seed=0):
    with global_seed(seed):
        return spec.build(*shape)


def images(*shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_pool_parameters_and_map():
    network = made(PoolCNN(), 1, (28, 28), 10)
    assert sum(p.numel() for p in network.parameters()) == 832 + 51264 + 640
    assert network.feature_map(torch.zeros(1, 1, 28, 28)).shape == (1, 64, 7, 7)


def test_pool_forward_pass_has_no_relu_before_pooling_nor_at_the_end():
    network = made(PoolCNN(filters=(4, 5)), 1, (12, 8), 3).double()
    x = images(1, 12, 8) - 0.5
    h = functional.max_pool2d(functional.conv2d(x, network.first.weight, network.first.bias, padding=2), 2)
    h = functional.conv2d(functional.relu(h), network.second.weight, network.second.bias, padding=2)
    h = functional.max_pool2d(h, 2)
    assert (h < 0).any()
    torch.testing.assert_close(network.feature_map(x), h)
    torch.testing.assert_close(network(x), h.mean((2, 3)) @ network.head.weight.T)


def test_pool_of_odd_sides_is_tensorflows_same():
    network = made(PoolCNN(filters=(2, 3)), 1, (9, 6), 3).double()
    with torch.no_grad():
        network.first.weight.zero_()
        network.first.weight[:, :, 2, 2] = 1  # hands the image on
    x = images(1, 9, 6)
    padded = functional.pad(x, (0, 0, 0, 1), value=float("-inf"))
    expected = functional.conv2d(
        functional.max_pool2d(padded, 2).expand(-1, 2, -1, -1), network.second.weight, padding=2
    )
    expected = functional.max_pool2d(functional.pad(expected, (0, 1, 0, 1), value=float("-inf")), 2)
    torch.testing.assert_close(network.feature_map(x), expected)


def test_wresnet_has_31_convolutions_and_half_a_million_parameters():
    network = made(BoopathyWResNet(), 3, (32, 32), 10)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    outputs = [16] * 11 + [32] * 10 + [64] * 10
    assert [c.out_channels for c in convolutions] == outputs
    assert [c.in_channels for c in convolutions] == [3, *outputs[:-1]]
    assert [i for i, c in enumerate(convolutions) if c.stride != (1, 1)] == [11, 21]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    weights = 432 + 10 * 2304 + (4608 + 9 * 9216) + (18432 + 9 * 36864)
    assert sum(p.numel() for p in network.parameters()) == weights + sum(outputs) + 640
    assert network.feature_map(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_wresnet_forward_pass():
    network = made(BoopathyWResNet(filters=(2, 4, 6), blocks=2), 3, (16, 8), 3).double()
    x = images(3, 16, 8)
    layers = iter([layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)])

    def convolved(h, stride=1):
        layer = next(layers)
        sides = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)  # stride 2: right and bottom only
        return functional.conv2d(functional.pad(h, sides), layer.weight, layer.bias, stride=stride)

    h = convolved(x)
    for stride in (1, 1, 2, 1, 2, 1):
        y = convolved(functional.relu(convolved(functional.relu(h), stride)))
        if stride == 2:
            h = functional.avg_pool2d(h, 2)
            zeros = torch.zeros_like(h[:, :1])
            h = torch.cat([zeros, h, zeros], 1)
        h = y + h
    assert next(layers, None) is None
    assert (h < 0).any()
    torch.testing.assert_close(network.feature_map(x), h)
    torch.testing.assert_close(network(x), h.mean((2, 3)) @ network.head.weight.T)


def test_the_shortcut_by_hand():
    x = torch.tensor([[[[1.0, 3.0, 10.0], [5.0, 7.0, 20.0], [100.0, 200.0, 1000.0]]]])
    assert halved(x[..., :2, :2]).tolist() == [[[[4.0]]]]
    assert halved(x).tolist() == [[[[4.0, 15.0], [150.0, 1000.0]]]]  # at an odd edge, of what is left
    pair = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    assert with_zero_channels(pair, 6).flatten().tolist() == [0, 0, 1, 2, 0, 0]
    assert with_zero_channels(pair, 5).flatten().tolist() == [0, 1, 2, 0, 0]
    assert with_zero_channels(pair, 2).flatten().tolist() == [1, 2]


@pytest.mark.parametrize("size", [(7, 5), (28, 28), (30, 21)])
def test_wresnet_other_sizes(size):
    network = made(BoopathyWResNet(filters=(2, 3, 4), blocks=1), 1, size, 3).double()
    assert network.feature_map(images(1, *size)).shape == (2, 4, -(-size[0] // 4), -(-size[1] // 4))


def test_groups_that_get_narrower_are_refused():
    with pytest.raises(SpecError, match="narrower"):
        BoopathyWResNet(filters=(16, 8, 64))


@pytest.mark.parametrize("spec", [PoolCNN(), BoopathyWResNet()])
def test_the_mean_of_the_cam_is_the_logit_of_the_others_too(spec):
    network = made(spec, 3, (16, 16), 4).double()
    maps = CAM()(network, images(3, 16, 16), torch.arange(4).expand(2, 4))
    assert (maps < 0).any()
    torch.testing.assert_close(maps.mean((2, 3)), network(images(3, 16, 16)).detach())


@pytest.mark.parametrize("spec", [PoolCNN(), BoopathyWResNet()])
def test_initial_weights_of_the_others(spec):
    for layer in made(spec, 3, (16, 16), 10).modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            weights = (layer.weight.detach() * layer.weight[0].numel() ** 0.5).flatten()[:20000]
            assert stats.kstest(weights.numpy(), "norm").pvalue > 1e-4
            assert layer.bias is None or (layer.bias == 0).all()
