"""SmoothGrad: what the noise is, and that only the stream, the position and the sample decide it."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.interpreters import AttackDifference, Gradient, GradientTimesInput, IntegratedGradients, SmoothGrad
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
        method, copies = SmoothGrad(samples=1, noise_level=level), images.repeat(count, 1, 1, 1)
        points = method(network, copies, Y.repeat(count), rng=Stream(1)).unflatten(0, (count, 4)) / 2
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


def test_noise_is_not_clipped_and_each_class_sees_the_same(images):
    """Of points beside black and white half lie outside [0, 1]; a map per class is that of the class alone."""
    network = adapt(Quadratic())
    points = torch.stack(
        [SmoothGrad(samples=1, noise_level=0.5)(network, images.round(), Y, rng=Stream(s)) / 2 for s in range(50)]
    )
    assert float((points[:, 0] < 0).double().mean() + (points[:, 0] > 1).double().mean()) == pytest.approx(0.5, abs=0.1)
    method, both = SmoothGrad(inner=GradientTimesInput(), samples=4), torch.stack([Y, (Y + 1) % 3], 1)
    maps = method(network, images, both, rng=Stream(1))
    assert maps.shape == (4, 2, 1, 4, 3)
    for column in (0, 1):
        torch.testing.assert_close(maps[:, column], method(network, images, both[:, column], rng=Stream(1)))


def test_the_noise_of_nested_methods_is_independent(images):
    """Inner points are the outer ones with noise of their own, by a tenth of the noisy image's wider range."""
    many, target = images[:1].expand(6000, -1, -1, -1), Y[:1].expand(6000)
    outer, nested = SmoothGrad(samples=1), SmoothGrad(inner=SmoothGrad(samples=1), samples=1)
    points, moved = (method(adapt(Quadratic()), many, target, rng=Stream(1)) / 2 for method in (outer, nested))
    first, second = points - many, moved - points
    spread = 0.1 * (points.amax((1, 2, 3)) - points.amin((1, 2, 3)))
    scaled = second / spread.view(-1, 1, 1, 1)
    assert float(scaled.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((first * scaled).mean() / first.std())) < 4.5 / first.numel() ** 0.5


def test_gradients_flow_through_the_points_and_not_through_the_scale_of_the_noise(images):
    """Maps of the quadratic score are 2 (x + sigma g): their derivative is 2, with sigma a constant."""
    leaf = images.clone().requires_grad_(True)
    maps = SmoothGrad(samples=3, noise_level=0.5)(adapt(Quadratic()), leaf, Y, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(maps.sum(), leaf)[0], torch.full_like(leaf, 2.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", [SmoothGrad(), SmoothGrad(inner=IntegratedGradients(steps=3), samples=150)])
def test_half_precision_does_not_overflow(linear, images, dtype, method):
    """A hundred gradients of 700 add up to more than float16 holds."""
    network = linear(classes=3).to(dtype)
    with torch.no_grad():
        network.weight.fill_(700.0)
    maps = method(network, images.to(dtype), Y)
    expected = 700 * (images if isinstance(method.inner, IntegratedGradients) else torch.ones_like(images))
    assert maps.dtype == dtype
    torch.testing.assert_close(maps.double(), expected, rtol=0.02, atol=5 * 70 / 150**0.5)


def test_points_outside_the_box_are_refused_by_inner_methods_that_need_images(linear, images):
    with pytest.raises(InputError, match=r"images must lie in \[0, 1\]"):
        SmoothGrad(inner=AttackDifference(), samples=2)(linear(classes=3), images, Y)


def test_each_sample_has_noise_of_its_own(images):
    network = adapt(Quadratic())
    one, two = (SmoothGrad(samples=n)(network, images, Y, rng=Stream(1)) / 2 for n in (1, 2))
    second = 2 * two - one
    assert bool(((second - one)[:3].abs().amax((1, 2, 3)) > 1e-3).all())
