import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from pellucid.errors import SpecError
from pellucid.models import JakubovitzCNN, TutorialCNN
from pellucid.rng import global_seed


def built(spec, *shape):
    with global_seed(0):
        return spec.build(*shape)


def images(*shape):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_tutorial_parameters():
    network = built(TutorialCNN(), 1, (28, 28), 10)
    assert sum(p.numel() for p in network.parameters()) == 832 + 51264 + (3136 * 1024 + 1024) + 10250
    assert network.head is None


def test_tutorial_weights_are_normal_and_cut_at_two_standard_deviations():
    network = built(TutorialCNN(), 1, (28, 28), 10)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 4
    for layer in layers:
        assert bool((layer.bias == 0.1).all())
        weights = layer.weight.detach().flatten()[:20000] / 0.1
        assert float(weights.abs().max()) <= 2 + 1e-6
        assert stats.kstest(weights.numpy(), stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [(28, 28), (9, 6)])
def test_tutorial_forward_pass(size):
    network = built(TutorialCNN(filters=(3, 4), hidden=5), 2, size, 3).double().eval()
    x, weights = images(2, *size), list(network.parameters())
    h = x
    for kernel, bias in (weights[:2], weights[2:4]):
        h = functional.relu(functional.conv2d(h, kernel, bias, padding=2))
        odd = (0, h.shape[3] % 2, 0, h.shape[2] % 2)
        h = functional.max_pool2d(functional.pad(h, odd, value=float("-inf")), 2)  # TensorFlow's SAME
    torch.testing.assert_close(network.feature_map(x), h)
    hidden = functional.relu(h.flatten(1) @ weights[4].T + weights[5])
    torch.testing.assert_close(network(x), hidden @ weights[6].T + weights[7])


def test_tutorial_dropout_comes_after_the_first_dense_layer_only():
    network = built(TutorialCNN(), 1, (28, 28), 10)
    dropped = [name for name, layer in network.named_modules() if isinstance(layer, nn.Dropout)]
    assert dropped == ["dense.3"]
    assert network.dense[3].p == 0.5
    assert TutorialCNN(dropout=0.25).build(1, (28, 28), 10).dense[3].p == 0.25


def test_cifar_layers_are_the_printed_ones():
    network = built(JakubovitzCNN(), 3, (32, 32), 10)
    kinds = [type(layer) for layer in network.convolutions]
    assert kinds == 4 * [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Dropout]
    assert [type(layer) for layer in network.dense] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert {layer.p for layer in network.convolutions if isinstance(layer, nn.Dropout)} == {0.25}
    widths = [(c.in_channels, c.out_channels) for c in network.convolutions if isinstance(c, nn.Conv2d)]
    assert widths == [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions = sum(9 * a * b + b for a, b in widths)
    assert sum(p.numel() for p in network.parameters()) == convolutions + (2048 * 512 + 512) + (512 * 10 + 10)


def test_cifar_images_in_training_do_not_depend_on_each_other():
    network = built(JakubovitzCNN(width=2, hidden=4, dropout=0), 3, (16, 16), 3).double().train()
    x = images(3, 16, 16)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


def test_cifar_weights_are_hes():
    network = built(JakubovitzCNN(), 3, (32, 32), 10)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weights = (layer.weight.detach() * (layer.weight[0].numel() / 2) ** 0.5).flatten()[:20000]
            assert stats.kstest(weights.numpy(), "norm").pvalue > 1e-3
            assert bool((layer.bias == 0).all())


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 64)])
def test_cifar_other_sizes(size):
    network = built(JakubovitzCNN(width=2, hidden=4), 1, size, 5).double().eval()
    assert network(images(1, *size)).shape == (2, 5)
    assert network.feature_map(images(1, *size)).shape == (2, 16, size[0] // 16, size[1] // 16)


def test_cifar_small_images_are_refused():
    with pytest.raises(SpecError, match="jakubovitz_cnn needs images of at least 16x16 pixels, not 15x32"):
        JakubovitzCNN().build(3, (15, 32), 10)
