"""Images that excite a unit, on networks where the answer is known."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.errors import InputError, SpecError
from pellucid.feature_visualisation import FeatureVisualisation, noise_images
from pellucid.models import adapt
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream
from pellucid.spec import from_dict, to_dict


class Pooled(Classifier):
    """Each channel of the map is one 1x1 filter; the second is dead at every image."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.head = nn.Conv2d(1, 2, 1), nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.filters.weight.copy_(torch.tensor([1.0, 1.0]).view(2, 1, 1, 1))
            self.filters.bias.copy_(torch.tensor([0.0, -5.0]))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))

    def features(self, x: Tensor) -> Tensor:
        return functional.relu(self.filters(x))


@pytest.fixture
def seeds() -> Tensor:
    return noise_images(3, (1, 4, 6)).double()


def test_an_excited_unit_of_a_linear_network_sees_white_and_a_repelled_one_black(seeds: Tensor) -> None:
    network, few = Pooled().double(), PGD(norm="l2", eps=1000, step_size=1, steps=20, random_start=False)
    bright = FeatureVisualisation(unit="class", ascent=few)(network, seeds, 0)
    dark = FeatureVisualisation(unit="class", ascent=few)(network, seeds, torch.tensor([1, 1, 1]))
    assert float(bright.min()) == 1
    assert float(dark.max()) < 0.01
    assert torch.equal(FeatureVisualisation(ascent=few)(network, seeds, 0), bright), "unit 0 drives class 0 alone"


def test_each_seed_may_ask_for_a_unit_of_its_own(seeds: Tensor) -> None:
    found = FeatureVisualisation(unit="class")(Pooled().double(), seeds, torch.tensor([0, 1, 0]))
    assert float(found[0].min()) == float(found[2].min()) == 1
    assert float(found[1].max()) < 0.01


def test_a_dead_unit_wakes_up_only_with_the_fake_relu(seeds: Tensor) -> None:
    network = Pooled().double()
    assert torch.equal(FeatureVisualisation()(network, seeds, 1), seeds), "no gradient, no step"
    for rule in ("last", "all"):
        assert float(FeatureVisualisation(fake_relu=rule)(network, seeds, 1).min()) == 1


def test_the_last_relu_alone_is_faked_where_only_the_last_is_asked_for(seeds: Tensor) -> None:
    class Deep(Pooled):
        def features(self, x: Tensor) -> Tensor:
            return functional.relu(functional.relu(self.filters(x) - 3))  # dead at the first ReLU already

    network = Deep().double()
    assert torch.equal(FeatureVisualisation(fake_relu="last")(network, seeds, 0), seeds)
    assert float(FeatureVisualisation(fake_relu="all")(network, seeds, 0).min()) == 1


def test_the_representation_is_what_the_last_linear_layer_takes(seeds: Tensor) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    network, method = adapt(bare), FeatureVisualisation()
    expected = torch.tanh(bare[1](seeds.flatten(1)))[:, 4]
    torch.testing.assert_close(method.activation(network, seeds, 4), expected.detach())
    found = method(network, seeds, 4)
    assert bool((method.activation(network, found, 4) > expected).all())
    assert not network.training or all(p.requires_grad for p in network.parameters())


def test_a_channel_of_a_named_layer(seeds: Tensor) -> None:
    network = Pooled().double()
    method = FeatureVisualisation(unit="channel", layer="filters")
    torch.testing.assert_close(method.activation(network, seeds, 1), seeds.mean((1, 2, 3)) - 5)
    assert float(method(network, seeds, 1).min()) == 1


def test_units_that_are_not_there_are_refused(seeds: Tensor) -> None:
    network = Pooled().double()
    for index, words in ((2, r"0\.\.1"), (-1, r"0\.\.1"), (torch.zeros(2, dtype=torch.int64), "each of the 3")):
        with pytest.raises(InputError, match=words):
            FeatureVisualisation()(network, seeds, index)
    with pytest.raises(InputError, match="penultimate"):
        FeatureVisualisation()(adapt(nn.Flatten()), seeds, 0)
    with pytest.raises(SpecError, match="channel"):
        FeatureVisualisation(unit="class", layer="filters")


def test_it_is_a_description_and_leaves_the_network_alone(seeds: Tensor) -> None:
    method = from_dict({"visualisation": "feature_visualisation", "unit": "class"})
    assert from_dict(to_dict(method)) == method
    network = Pooled().double().train()
    method(network, seeds, 0)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert method(network, seeds[:0], 0).shape == (0, 1, 4, 6)


def test_noise_is_faint_grey_and_seeded() -> None:
    images = noise_images(4, (3, 16, 16), Stream(2))
    assert float(images.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(images.std()) == pytest.approx(0.05, abs=0.005)
    assert torch.equal(images[:2], noise_images(2, (3, 16, 16), Stream(2)))
