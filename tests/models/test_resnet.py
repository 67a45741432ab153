import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from pellucid.errors import SpecError
from pellucid.models import PreActResNet18, ResNet18, WideResNet
from pellucid.rng import global_seed


def built(spec, *shape):
    with global_seed(0):
        return spec.build(*shape)


def count(network):
    return sum(p.numel() for p in network.parameters())


def images(*shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lively(network):
    """Give batch norms statistics and weights that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return network.double().eval()


def normed(x, layer):
    shape = (1, -1, 1, 1)
    scale = (layer.weight / (layer.running_var + 1e-5).sqrt()).view(shape)
    return (x - layer.running_mean.view(shape)) * scale + layer.bias.view(shape)


def test_resnet18_has_the_known_numbers_of_parameters():
    assert count(built(ResNet18(), 3, (32, 32), 10)) == 11_173_962
    assert count(built(ResNet18(stem="imagenet"), 3, (224, 224), 1000)) == 11_689_512


def test_resnet8_of_width_16():
    network = built(ResNet18(blocks=(1, 1, 1), width=16), 3, (32, 32), 10)
    convolutions = [
        layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
    ]
    assert len(convolutions) + 1 == 8  # and the head
    stem, shortcuts = 27 * 16 + 32, (16 * 32 + 64) + (32 * 64 + 128)
    blocks = sum(9 * a * b + 9 * b * b + 4 * b for a, b in ((16, 16), (16, 32), (32, 64)))
    assert count(network) == stem + blocks + shortcuts + 650
    assert network.feature_map(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
def test_the_last_map_and_the_head(stem, side):
    network = lively(built(ResNet18(stem=stem, width=2), 3, (32, 32), 5))
    features = network.feature_map(images(3, 32, 32))
    assert features.shape == (2, 16, side, side)
    torch.testing.assert_close(network(images(3, 32, 32)), network.head(features.mean((2, 3))))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_resnet_forward_pass(stem):
    network = lively(built(ResNet18(stem=stem, width=2, blocks=(1, 1), mean=0.3, std="0.5"), 3, (12, 8), 5))
    x, weights = (images(3, 12, 8) - 0.3) / 0.5, network.conv1.weight
    if stem == "cifar":
        h = functional.relu(normed(functional.conv2d(x, weights, padding=1), network.bn1))
    else:
        h = functional.relu(normed(functional.conv2d(x, weights, padding=3, stride=2), network.bn1))
        h = functional.max_pool2d(h, 3, 2, 1)
    for stride, block in ((1, network.layer1[0]), (2, network.layer2[0])):
        inner = functional.relu(normed(functional.conv2d(h, block.conv1.weight, padding=1, stride=stride), block.bn1))
        inner = normed(functional.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
        if stride == 2:
            h = normed(functional.conv2d(h, block.downsample[0].weight, stride=2), block.downsample[1])
        h = functional.relu(inner + h)
    torch.testing.assert_close(network.feature_map(images(3, 12, 8)), h)


def test_pre_activation_forward_pass():
    network = lively(built(PreActResNet18(width=2, blocks=(1, 1)), 1, (6, 8), 3))
    h = functional.conv2d(images(1, 6, 8), network.stem.weight, padding=1)
    for stride, block in zip((1, 2), network.blocks):
        active = functional.relu(normed(h, block.bn1))
        inner = functional.conv2d(active, block.conv1.weight, padding=1, stride=stride)
        inner = functional.conv2d(functional.relu(normed(inner, block.bn2)), block.conv2.weight, padding=1)
        h = inner + (h if stride == 1 else functional.conv2d(active, block.shortcut.weight, stride=2))
    h = functional.relu(normed(h, network.bn))
    torch.testing.assert_close(network.feature_map(images(1, 6, 8)), h)
    torch.testing.assert_close(network(images(1, 6, 8)), h.mean((2, 3)) @ network.head.weight.T + network.head.bias)


def test_pre_activation_parameters():
    stages = ((64, 64), (64, 128), (128, 256), (256, 512))
    blocks = sum(9 * (a * b + 3 * b * b) + 2 * (a + 3 * b) for a, b in stages)
    shortcuts = 64 * 128 + 128 * 256 + 256 * 512
    assert count(built(PreActResNet18(), 3, (32, 32), 10)) == 27 * 64 + blocks + shortcuts + 2 * 512 + 5130


def wide_parameters(depth, widen, classes=10):
    n, inputs, total = (depth - 4) // 6, 16, 27 * 16
    for width in (16 * widen, 32 * widen, 64 * widen):
        for _ in range(n):
            total += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width * width
            total += inputs * width if inputs != width else 0
            inputs = width
    return total + 2 * inputs + inputs * classes + classes


@pytest.mark.parametrize(("depth", "widen"), [(10, 1), (16, 2), (40, 1)])
def test_wide_parameters(depth, widen):
    network = built(WideResNet(depth=depth, widen=widen), 3, (32, 32), 10)
    assert count(network) == wide_parameters(depth, widen)
    deep = [c for c in network.modules() if isinstance(c, nn.Conv2d) and c.kernel_size == (3, 3)]
    assert len(deep) == depth - 3  # the three 1x1 shortcuts and the head make the count of the paper
    assert network.feature_map(torch.zeros(1, 3, 32, 32)).shape == (1, 64 * widen, 8, 8)


def test_the_papers_wide_resnet():
    assert wide_parameters(28, 10) == 36_479_194
    assert count(WideResNet().build(3, (32, 32), 10)) == 36_479_194


@pytest.mark.parametrize("depth", [4, 8, 18, 27])
def test_depths_that_do_not_divide_are_refused(depth):
    with pytest.raises(SpecError, match=rf"wide_resnet.depth must be 6 n \+ 4 .*, not {depth}"):
        WideResNet(depth=depth)


def test_wide_dropout_lies_between_the_convolutions_of_every_block():
    network = built(WideResNet(depth=10, widen=1, dropout=0.3), 1, (8, 8), 3)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == 3 * [0.3]
    block = network.blocks[0].double().eval()
    x = images(16, 4, 4)
    kept = block(x)
    with global_seed(0):
        assert not torch.allclose(block.train()(x), kept)
    network.blocks[0].dropout.p = 1.0
    torch.testing.assert_close(block(x), x)  # all that the block adds is dropped


@pytest.mark.parametrize("spec", [ResNet18(), PreActResNet18(), WideResNet(widen=4)])
def test_weights_are_hes(spec):
    network = built(spec, 3, (32, 32), 10)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            weights = (layer.weight.detach() * (fan_out / 2) ** 0.5).flatten()[:5000]
            assert stats.kstest(weights.numpy(), "norm").pvalue > 1e-4
    assert bool((network.head.bias == 0).all())


@pytest.mark.parametrize("cls", [ResNet18, PreActResNet18])
def test_no_groups_are_refused(cls):
    with pytest.raises(SpecError, match="at least one group"):
        cls(blocks=())


@pytest.mark.parametrize("cls", [ResNet18, PreActResNet18, WideResNet])
def test_each_channel_has_its_mean_and_std(cls):
    network = (
        built(cls(mean="0.1,0.2,0.3", std=(1, 2, 4)), 3, (8, 8), 2)
        if cls is not WideResNet
        else built(WideResNet(depth=10, widen=1, mean="0.1,0.2,0.3", std=(1, 2, 4)), 3, (8, 8), 2)
    )
    x = images(3, 8, 8).float()
    expected = torch.stack([(x[:, 0] - 0.1), (x[:, 1] - 0.2) / 2, (x[:, 2] - 0.3) / 4], 1)
    torch.testing.assert_close(network.normalise(x), expected)
