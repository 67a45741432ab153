import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.interpreters import CAM, Gradient
from pellucid.maths import counted
from pellucid.models import SmallCNN, adapt
from pellucid.rng import global_seed


class Foreign(nn.Module):
    """Somebody's network: its own names, in-place ReLU after the last convolution."""

    def __init__(self, classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.dropout(self.pool(self.relu(self.stem(x))).flatten(1)))


@pytest.fixture
def foreign():
    with global_seed(0):
        return Foreign().double()


@pytest.fixture
def images(generator):
    return torch.rand(5, 3, 6, 6, generator=generator, dtype=torch.float64)


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in module.modules())


def test_logits_are_the_modules_on_normalised_images(foreign, images):
    network = adapt(foreign, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    shift, width = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    with counted() as passes:
        logits = network(images)
    torch.testing.assert_close(logits, foreign((images - shift) / width))
    assert (passes.forward, passes.backward) == (5, 0)


def test_maps_of_an_adapted_network(foreign, images):
    network = adapt(foreign, mean=0.5, std=0.25, feature_layer="relu", head="fc")
    logits = network(images)
    maps = CAM()(network, images, torch.arange(4).expand(5, 4))
    assert maps.shape == (5, 4, 6, 6)
    torch.testing.assert_close(maps.mean((2, 3)) + foreign.fc.bias.detach(), logits.detach())
    assert hooks(foreign) == 0


def test_features_are_copied_before_the_next_layer_works_in_place(foreign, images):
    features = adapt(foreign, feature_layer="stem").feature_map(images)
    assert (features < 0).any()
    torch.testing.assert_close(features, foreign.stem(images))


def test_features_can_be_differentiated(foreign, images):
    network = adapt(foreign, feature_layer="relu", head="fc")
    x = images.clone().requires_grad_(True)
    CAM()(network, x, torch.zeros(5, dtype=torch.long), create_graph=True).sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert float(foreign.stem.weight.grad.abs().sum()) > 0


def test_methods_without_features_need_no_names(foreign, images):
    maps = Gradient()(adapt(foreign), images, torch.zeros(5, dtype=torch.long))
    assert maps.shape == images.shape
    with pytest.raises(InputError, match="no feature layer was named"):
        adapt(foreign).feature_map(images)


@pytest.mark.parametrize("given", [{"feature_layer": "layer4"}, {"head": "classifier"}])
def test_unknown_names_are_refused_with_those_there_are(foreign, given):
    name = next(iter(given.values()))
    with pytest.raises(InputError, match=f"no layer '{name}'; it has stem, relu, pool, dropout, fc"):
        adapt(foreign, **given)


def test_a_head_must_be_linear(foreign):
    with pytest.raises(InputError, match="'pool' is a AdaptiveAvgPool2d"):
        adapt(foreign, feature_layer="relu", head="pool")


@pytest.mark.parametrize("layer", ["stem", "pool"])
def test_a_head_that_does_not_read_the_pooled_features_is_refused(foreign, images, layer):
    network = adapt(foreign, feature_layer=layer, head="fc").eval()
    if layer == "stem":  # before the ReLU: pooling gives other numbers
        with pytest.raises(InputError, match="not the linear map from the pooled features"):
            network.feature_map(images)
    else:  # after pooling: a map of one position, on which the head does act
        assert network.feature_map(images).shape == (5, 6, 1, 1)
    assert hooks(foreign) == 0


def test_dropout_before_the_head_is_no_reason_to_refuse_it_in_training(images):
    with global_seed(0):
        network = adapt(Foreign(dropout=0.5).double(), feature_layer="relu", head="fc").train()
        assert network.feature_map(images).shape == (5, 6, 6, 6)


def test_a_layer_that_gives_no_map_is_refused_and_the_hook_removed(foreign, images):
    with pytest.raises(InputError, match=r"must give a map .*\(5, 6\)"):
        adapt(foreign, feature_layer="dropout").feature_map(images)
    assert hooks(foreign) == 0

    class Odd(Foreign):
        def __init__(self):
            super().__init__()
            self.pair, self.unused = Pair(), nn.Identity()

        def forward(self, x):
            return super().forward(self.pair(x)[0])

    odd = Odd().double()
    for layer in ("pair", "unused"):
        with pytest.raises(InputError, match="no tensor"):
            adapt(odd, feature_layer=layer).feature_map(images)
    assert hooks(odd) == 0


def test_the_hook_is_removed_also_after_an_exception(foreign, images):
    network = adapt(foreign, feature_layer="stem")
    with pytest.raises(RuntimeError):
        network.feature_map(images[:, :2])
    assert hooks(foreign) == 0


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("module", [nn.Identity(), Pair()])
def test_what_returns_no_logits_is_refused(module, images):
    with pytest.raises(InputError, match=r"must return logits \(N, K\)"):
        adapt(module)(images)


def test_no_image(foreign, images):
    network = adapt(foreign, feature_layer="relu", head="fc").eval()
    assert network(images[:0]).shape == (0, 4)
    assert network.feature_map(images[:0]).shape == (0, 6, 6, 6)


def test_a_classifier_is_returned_as_it_is():
    with global_seed(0):
        network = SmallCNN(filters=(2, 2, 2)).build(1, (8, 8), 3)
    assert adapt(network) is network


def test_what_cannot_be_adapted_is_refused(foreign):
    with pytest.raises(InputError, match="needs a torch module"):
        adapt(lambda x: x)
    with pytest.raises(InputError, match="lazy layers without weights"):
        adapt(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    with pytest.raises(InputError, match="mean must be one finite number"):
        adapt(foreign, mean=(0.1, float("nan"), 0.1))


@pytest.mark.parametrize("given", [{"mean": 0.5}, {"std": (1.0, 1.0, 1.0)}, {"feature_layer": "x"}, {"head": "head"}])
def test_a_classifier_takes_no_options(given):
    with pytest.raises(InputError, match="no options"):
        adapt(SmallCNN(filters=(2, 2, 2)).build(1, (8, 8), 3), **given)


def test_one_row_of_logits_per_image(images):
    class Longer(Foreign):
        def forward(self, x):
            return super().forward(torch.cat([x, x[:1]]))

    with pytest.raises(InputError, match=r"\(N, K\), N = 5; it returned \(6, 4\)"):
        adapt(Longer().double())(images)


def test_grey_images_for_a_mean_of_three_channels_are_refused(foreign, images):
    with pytest.raises(InputError, match=r"takes images \(N, 3, H, W\)"):
        adapt(foreign, mean=(0.4, 0.5, 0.6))(images[:, :1])


def test_networks_that_cannot_count_no_images_give_none():
    class Heads(nn.Module):
        """Splits heads by reshape(..., -1), as transformers do, which is ambiguous where there is nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(2, 5)

        def forward(self, x):
            x = self.norm(self.first(x))
            return self.last(x.reshape(len(x), 2, -1).mean(2))

    module = Heads().eval()
    network, none = adapt(module, feature_layer="norm"), torch.rand(0, 3, 4, 6, requires_grad=True)
    logits = network(none)
    assert logits.shape == (0, 5)
    assert torch.autograd.grad(logits.sum(), none)[0].shape == none.shape
    assert network.feature_map(none).shape == (0, 4, 4, 6)
    network.train()
    with pytest.raises(RuntimeError):  # an image of its own making would enter the running statistics
        network(none)
    assert int(module.norm.num_batches_tracked) <= 1
    with pytest.raises(RuntimeError):
        network(torch.rand(2, 4, 4, 6))
