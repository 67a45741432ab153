"""SmoothGrad: what the noise is, and that only the stream, the position and the sample decide it."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.interpreters import Gradient, GradientTimesInput, IntegratedGradients, SmoothGrad
from pellucid.models import adapt
from pellucid.rng import Stream

Y = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def images() -> Tensor:
    x = Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 4, 3))
    return x * torch.tensor([1.0, 0.5, 0.1, 0.0]).view(4, 1, 1, 1)  # ranges of their own, the last one constant


class Quadratic(nn.Module):
    """The gradient of every logit is twice the image, so that a map shows the noisy point itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1, keepdim=True).expand(-1, 3)


def test_noise_is_gaussian_and_a_share_of_each_images_own_range(images):
    network, count = adapt(Quadratic()), 3000
    spread = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
    for level in (0.1, 0.3):
        points = torch.stack(
            [
                SmoothGrad(samples=1, noise_level=level)(network, images, Y, rng=Stream(seed)) / 2
                for seed in range(count)
            ]
        )
        noise = points - images
        assert float((noise.mean(0) / (level * spread.view(4, 1, 1, 1) + 1e-9)).abs().max()) < 5 / count**0.5
        found = noise.flatten(2).std((0, 2))
        torch.testing.assert_close(found, level * spread, rtol=0.03, atol=1e-12)
        assert float(noise[:, 3].abs().max()) == 0, "a constant image has no noise"
        kurtosis = (noise[:, 0] / noise[:, 0].std()).pow(4).mean()
        assert float(kurtosis) == pytest.approx(3, abs=0.15)


def test_the_map_is_the_mean_over_samples(images):
    network = adapt(Quadratic())
    parts = SmoothGrad(samples=64)(network, images, Y, rng=Stream(1)) / 2
    spread = 0.1 * (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).view(4, 1, 1, 1)
    gaps = (parts - images) / (spread / 8 + 1e-12)
    assert float(gaps[:3].abs().max()) < 5
    assert float(gaps[:3].std()) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("inner", [Gradient(), GradientTimesInput(), IntegratedGradients(steps=3)])
def test_without_noise_it_is_the_inner_map(linear, images, inner):
    network = linear(classes=3)
    found = SmoothGrad(inner=inner, samples=4, noise_level=0)(network, images, Y)
    torch.testing.assert_close(found, inner(network, images, Y))


def test_of_a_linear_network_the_gradient_stays(linear, images):
    network = linear(classes=3)
    torch.testing.assert_close(SmoothGrad(samples=5)(network, images, Y), Gradient()(network, images, Y))


@pytest.mark.parametrize(
    "inner", [Gradient(score="cross_entropy"), IntegratedGradients(steps=4, baseline="expected"), SmoothGrad(samples=3)]
)
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_neither_chunk_nor_batch_nor_order_matter(linear, images, inner, chunk):
    network = linear(classes=3)
    whole = SmoothGrad(inner=inner, samples=9)(network, images, Y, rng=Stream(2))
    parts = SmoothGrad(inner=inner, samples=9, chunk=chunk)(network, images, Y, rng=Stream(2))
    assert float((whole - parts).abs().max() / whole.abs().max()) < 1e-5
    rows = torch.tensor([2, 0])
    some = SmoothGrad(inner=inner, samples=9)(network, images[rows], Y[rows], rng=Stream(2, rows))
    torch.testing.assert_close(some, whole[rows])


def test_each_sample_has_noise_of_its_own(images):
    network = adapt(Quadratic())
    one, two = (SmoothGrad(samples=n)(network, images, Y, rng=Stream(1)) / 2 for n in (1, 2))
    second = 2 * two - one
    assert bool(((second - one)[:3].abs().amax((1, 2, 3)) > 1e-3).all())
