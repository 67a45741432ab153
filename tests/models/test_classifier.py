import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.models import Classifier, PerImage, SmallCNN


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


def test_each_image_may_be_standardised_by_itself():
    """Against numpy's mean and deviation; flat images, whose deviation is 0, become black and not NaN."""
    spec = PerImage(network=SmallCNN())
    network = spec.build(3, (28, 28), 10)
    images = torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    images[1], images[2] = 0.25, images[2] * 1e-4
    expected = [(x - x.mean()) / max(float(x.numpy().std()), (3 * 28 * 28) ** -0.5) for x in images]
    torch.testing.assert_close(network.normalise(images), torch.stack(expected), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network(images[:1]), network(images)[:1], atol=1e-5, rtol=1e-4)
    flat = torch.full((2, 3, 28, 28), 0.5, requires_grad=True)
    network(flat).sum().backward()
    assert flat.grad.isfinite().all()
    plain = spec.network.build(3, (28, 28), 10)
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(plain(torch.stack(expected)[:1]), network(images)[:1], atol=1e-4, rtol=1e-3)


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


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [(), float("nan"), float("inf"), (0.5, float("nan"))])
def test_normalisation_must_be_finite_numbers(name, value):
    with pytest.raises(InputError, match=f"{name} must be one finite number"):
        Pooled(**{name: value})


def test_mean_and_std_of_different_channels_are_refused():
    with pytest.raises(InputError, match="one per channel"):
        Pooled(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5))
    with pytest.raises(InputError, match="one per channel"):
        Pooled(mean=(0.1, 0.2, 0.3), channels=1)


def test_images_of_another_number_of_channels_are_refused():
    grey = IMAGES[:, :1]  # broadcasting would make colours of them
    for network in (Pooled(mean=(0.1, 0.5)), Pooled(std=(0.1, 0.5)), Pooled(channels=2)):
        with pytest.raises(InputError, match=r"takes images \(N, 2, H, W\); got shape \(3, 1, 2, 2\)"):
            network(grey)
        assert network(IMAGES).shape == (3, 3)
    with pytest.raises(InputError, match=r"\(N, C, H, W\); got shape \(2, 2, 2\)"):
        Pooled().feature_map(IMAGES[0])


def test_images_of_another_dtype_than_the_weights_are_refused():
    with pytest.raises(
        InputError, match=r"images are torch.float64 when normalised, the network's weights torch.float32"
    ):
        Pooled()(IMAGES.double())
    with pytest.raises(InputError, match=r"weights torch.bfloat16"):
        Pooled().bfloat16()(IMAGES)
    assert Pooled().bfloat16()(IMAGES.bfloat16()).dtype == torch.bfloat16
    assert Pooled()(IMAGES.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert Pooled()(IMAGES).dtype == torch.bfloat16
        with pytest.raises(InputError, match="float64"):
            Pooled()(IMAGES.double())
