import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.models import Classifier


class Pooled(Classifier):
    """Features are the normalised image itself."""

    def __init__(self, **normalisation):
        super().__init__(**normalisation)
        self.head = nn.Linear(2, 3)

    def features(self, x):
        return x


IMAGES = torch.linspace(0, 1, 3 * 2 * 4).view(3, 2, 2, 2)


def test_the_base_normalises_per_channel():
    network = Pooled(mean=(0.1, 0.5), std=(0.5, 2.0))
    expected = torch.stack([(IMAGES[:, 0] - 0.1) / 0.5, (IMAGES[:, 1] - 0.5) / 2], 1)
    torch.testing.assert_close(network.feature_map(IMAGES), expected)
    torch.testing.assert_close(network(IMAGES), network.head(expected.mean((2, 3))))


def test_without_normalisation_images_come_through_unchanged():
    assert torch.equal(Pooled().feature_map(IMAGES), IMAGES)
    torch.testing.assert_close(Pooled(mean=0.5, std=0.5).feature_map(IMAGES), 2 * IMAGES - 1)


def test_normalisation_is_part_of_the_weights():
    network = Pooled(mean=(0.1, 0.5), std=(0.5, 2.0))
    other = Pooled(mean=(0.0, 0.0), std=(1.0, 1.0))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(IMAGES), network(IMAGES))
    assert other.double()(IMAGES.double()).dtype == torch.float64


@pytest.mark.parametrize("std", [0.0, -1.0, (1.0, 0.0)])
def test_std_must_be_positive(std):
    with pytest.raises(InputError, match="std must be positive"):
        Pooled(std=std)


def test_forward_passes_are_counted_once():
    with counted() as passes:
        Pooled()(IMAGES)
        Pooled().feature_map(IMAGES[:2])
    assert (passes.forward, passes.backward) == (5, 0)


def test_what_a_subclass_must_define():
    class Nothing(Classifier):
        pass

    with pytest.raises(NotImplementedError, match="Nothing does not define features"):
        Nothing()(IMAGES)
    with pytest.raises(NotImplementedError, match="no head"):
        Nothing().classify(IMAGES)
