import numpy as np
import pytest
import torch

from pellucid.errors import SpecError
from pellucid.models import RossCNN
from pellucid.models.lcn import LocalContrastNormalisation
from pellucid.rng import global_seed


def pictures(n, channels=1, size=(9, 8), seed=0):
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def window():
    weights = np.array([[np.exp(-(a * a + b * b) / (2 * 3.0**2)) for b in range(-3, 4)] for a in range(-3, 4)])
    return weights / weights.sum()


def blurred(image, weights):
    """G * image of one channel with zeros outside, by loops."""
    out = np.zeros_like(image)
    for i, j in np.ndindex(*image.shape):
        for a, b in np.ndindex(7, 7):
            row, column = i + a - 3, j + b - 3
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                out[i, j] += weights[a, b] * image[row, column]
    return out


def normalised(images, mean):
    v = [image - blurred(image, window()) for image in images]
    s = [np.sqrt(blurred(each**2, window())) for each in v]
    means = [np.mean(s)] * len(s) if mean == "batch" else [each.mean() for each in s]
    return np.stack([a / np.maximum(np.maximum(m, b), 1e-4) for a, b, m in zip(v, s, means)])


@pytest.mark.parametrize("mean", ["image", "batch"])
def test_against_loops(mean):
    x = pictures(3) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    found = LocalContrastNormalisation(mean)(x)
    np.testing.assert_allclose(found[:, 0].numpy(), normalised(x[:, 0].numpy(), mean), rtol=1e-9, atol=1e-12)


def test_means_over_an_image_leave_it_alone_and_means_over_the_batch_do_not():
    x = pictures(4) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1, 1)
    alone, together = LocalContrastNormalisation("image"), LocalContrastNormalisation("batch")
    torch.testing.assert_close(alone(x)[1:2], alone(x[1:2]))
    torch.testing.assert_close(alone(x[:1]), together(x[:1]))
    assert float((together(x)[:1] - together(x[:1])).abs().max()) > 0.1


def test_contrast_does_not_count_and_equal_channels_are_as_one():
    x, lcn = pictures(2), LocalContrastNormalisation()
    torch.testing.assert_close(lcn(5 * x), lcn(x))
    torch.testing.assert_close(lcn(x.expand(-1, 3, -1, -1)), lcn(x).expand(-1, 3, -1, -1))


def test_images_below_the_floor_are_only_scaled():
    x = 1e-6 * pictures(1).clamp(-1, 1)
    v = x[0, 0].numpy() - blurred(x[0, 0].numpy(), window())
    np.testing.assert_allclose(LocalContrastNormalisation()(x)[0, 0].numpy(), v / 1e-4, rtol=1e-9)


@pytest.mark.parametrize("mean", ["image", "batch"])
def test_derivatives_and_flat_images(mean):
    lcn = LocalContrastNormalisation(mean)
    assert torch.autograd.gradcheck(lcn, (pictures(2, 2, (4, 5)).requires_grad_(True),))
    flat = torch.zeros(2, 1, 9, 9).requires_grad_(True)
    flat.data[0, 0, 4, 4] = 1.0  # corners of the first stay flat
    (slope,) = torch.autograd.grad(lcn(flat).square().sum(), flat, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), flat)
    assert bool(slope.isfinite().all())
    assert bool(bend.isfinite().all())
    assert bool((lcn(torch.zeros(1, 1, 9, 9)) == 0).all())


def test_it_comes_after_the_networks_own_normalisation_and_before_the_first_convolution():
    with global_seed(0):
        network = RossCNN(filters=(2, 3), hidden=4, lcn=True).build(1, (12, 8), 3).double().eval()
        plain = RossCNN(filters=(2, 3), hidden=4).build(1, (12, 8), 3).double().eval()
    plain.load_state_dict(network.state_dict())  # it has no weights
    network.mean = torch.full_like(network.mean, 0.5)
    x = pictures(3, size=(12, 8))
    torch.testing.assert_close(network(x), plain(LocalContrastNormalisation()(x - 0.5)))
    assert not torch.allclose(network(x), plain(x - 0.5))


def test_which_mean_is_the_networks_choice():
    x = pictures(3, size=(12, 8)) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    for mean, alone in (("image", True), ("batch", False)):
        with global_seed(0):
            network = RossCNN(filters=(2, 3), hidden=4, lcn=True, lcn_mean=mean).build(1, (12, 8), 3).double().eval()
        assert torch.allclose(network(x)[:1], network(x[:1])) == alone


def test_its_option_without_it_is_refused():
    with pytest.raises(SpecError, match="lcn_mean=batch needs lcn=true"):
        RossCNN(lcn_mean="batch")
