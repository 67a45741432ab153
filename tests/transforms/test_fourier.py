import math

import pytest
import torch

from pellucid.errors import SpecError
from pellucid.maths.fourier import conjugate, squared_frequencies
from pellucid.rng import Stream
from pellucid.spec import digest, from_dict
from pellucid.transforms import HighPass, LowPass, RandomFourier

X = Stream(1).uniform(torch.empty(3, 0, dtype=torch.float64), (3, 16, 12))
DIAGONAL = math.hypot(8, 6)


def wave(rows, columns, size=(16, 12)):
    """Return a grey cosine image (1, 1, H, W) with so many periods down and across."""
    down, across = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in size)
    return (0.5 + 0.4 * torch.cos(rows * down[:, None] + columns * across))[None, None]


def modes(images):
    return torch.fft.fft2(images).abs()


@pytest.mark.parametrize("frequency", [(1, 0), (0, 1), (3, 4), (3, -4), (5, 0)])
def test_a_wave_passes_up_to_its_frequency_and_not_below(frequency):
    x, size = wave(*frequency), math.hypot(*frequency)
    torch.testing.assert_close(LowPass(radius=size)(x), x)
    torch.testing.assert_close(LowPass(radius=size - 1e-3)(x), torch.full_like(x, 0.5))
    torch.testing.assert_close(HighPass(radius=size)(x), torch.zeros_like(x))
    torch.testing.assert_close(HighPass(radius=size - 1e-3)(x), x - 0.5)


@pytest.mark.parametrize("radius", [0, 1, 3.7, 5, DIAGONAL])
def test_low_and_high_add_up_in_values_and_in_energy(radius):
    low, high = LowPass(radius=radius)(X), HighPass(radius=radius)(X)
    torch.testing.assert_close(low + high, X, rtol=0, atol=1e-12)
    energy = [part.square().sum((2, 3)) for part in (low, high, X)]
    torch.testing.assert_close(energy[0] + energy[1], energy[2])
    single = LowPass(radius=radius)(X.float()) + HighPass(radius=radius)(X.float())
    torch.testing.assert_close(single, X.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.77, 1])
def test_shares(share):
    low, high = LowPass(share=share), HighPass(share=1 - share)
    torch.testing.assert_close(low(X) + high(X), X, rtol=0, atol=1e-12)
    step = 12 / (16 * 12)  # at most 12 modes lie at one distance
    assert abs(low.mask((16, 12)).double().mean() - share) <= step / 2
    assert abs(HighPass(share=share).mask((16, 12)).double().mean() - share) <= step / 2


def test_the_modes_that_are_kept_keep_their_size():
    kept = squared_frequencies((16, 12)) <= 9
    torch.testing.assert_close(modes(LowPass(radius=3)(X)), modes(X) * kept)
    torch.testing.assert_close(modes(HighPass(radius=3)(X)), modes(X) * ~kept)


def test_identities_and_extremes():
    for whole in (LowPass(radius=DIAGONAL), LowPass(radius=1e9), LowPass(share=1), HighPass(share=1)):
        torch.testing.assert_close(whole(X.float()), X.float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(whole(X), X, rtol=0, atol=1e-12)
    mean = X.mean((2, 3), keepdim=True)
    torch.testing.assert_close(LowPass(radius=0)(X), mean.expand_as(X))
    torch.testing.assert_close(HighPass(radius=0)(X), X - mean)
    for nothing in (LowPass(share=0), HighPass(share=0), HighPass(radius=DIAGONAL)):
        torch.testing.assert_close(nothing(X), torch.zeros_like(X))


def test_nothing_is_clipped_unless_asked():
    x = (X > 0.5).double()
    low, high = LowPass(radius=4)(x), HighPass(radius=4)(x)
    assert low.max() > 1
    assert low.min() < 0
    assert high.min() < -0.3
    assert torch.equal(LowPass(radius=4, clip=True)(x), low.clamp(0, 1))
    assert torch.equal(HighPass(radius=4, clip=True)(x), high.clamp(0, 1))
    random = RandomFourier(drop=0.5)(x)
    assert random.min() < 0
    assert torch.equal(RandomFourier(drop=0.5, clip=True)(x), random.clamp(0, 1))


@pytest.mark.parametrize(
    ("transform", "percent"),
    [
        (LowPass(radius=144, form="code"), 1.7),
        (LowPass(radius=130, form="code"), 7.0),
        (LowPass(radius=120, form="code"), 13.5),
        (LowPass(radius=44, form="code"), 87.9),
        (HighPass(radius=144, form="code"), 98.3),
        (HighPass(radius=142, form="code"), 97.8),
        (HighPass(radius=148, form="code"), 99.1),
    ],
)  # methods.md, section 7
def test_the_authors_masks_at_224_pixels(transform, percent):
    mask = transform.mask((224, 224))
    assert round(100 * mask.double().mean().item(), 1) == percent
    x = Stream(2).uniform(torch.empty(1, 0, dtype=torch.float64), (1, 224, 224))
    expected = torch.fft.ifft2(torch.fft.fft2(x) * mask).real
    torch.testing.assert_close(transform(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", [LowPass, HighPass])
def test_one_of_radius_and_share_is_needed(transform):
    for fields in ({}, {"radius": 1, "share": 0.5}):
        with pytest.raises(SpecError, match=r"one of radius .* and share"):
            transform(**fields)
    with pytest.raises(SpecError, match="form=code needs radius"):
        transform(share=0.5, form="code")
    with pytest.raises(SpecError, match="share"):
        transform(share=1.1)
    name = "low_pass" if transform is LowPass else "high_pass"
    assert from_dict({"transform": name, "radius": "8"}) == transform(radius=8.0)
    assert digest(transform(radius=1.0)) != digest(transform(share=1.0))


def test_dropping_none_and_all():
    for form in ("symmetric", "code"):
        torch.testing.assert_close(RandomFourier(drop=0, form=form)(X.float()), X.float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(RandomFourier(drop=1, form=form)(X), torch.zeros_like(X))


@pytest.mark.parametrize("size", [(16, 12), (7, 5), (1, 6), (5, 8)])
def test_a_mode_is_there_or_gone_with_its_conjugate(size):
    x = Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (3, *size))
    transform = RandomFourier(drop=0.4)
    mask = transform.mask(x, Stream(2))
    assert mask.shape == (4, 1, *size)
    assert torch.equal(mask, conjugate(mask))
    torch.testing.assert_close(modes(transform(x, rng=Stream(2))), modes(x) * mask, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
def test_as_many_modes_are_dropped_as_asked(drop):
    x = torch.rand(60, 3, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for form, draws in (("symmetric", 60 * 100), ("code", 60 * 3 * 192)):  # 98 pairs and single modes, about
        mask = RandomFourier(drop=drop, form=form).mask(x, Stream(1))
        assert abs((~mask).double().mean() - drop) < 5 * math.sqrt(drop * (1 - drop) / draws)
        means = (~mask[:, 0, 0, 0]).double().mean()
        assert abs(means - drop) < 4 * math.sqrt(drop * (1 - drop) / 60)


def test_the_code_masks_channels_apart_and_takes_the_real_part():
    transform = RandomFourier(drop=0.4, form="code")
    mask = transform.mask(X, Stream(2))
    assert mask.shape == X.shape
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert not torch.equal(mask, conjugate(mask))
    expected = torch.fft.ifft2(torch.fft.fft2(X) * mask).real
    torch.testing.assert_close(transform(X, rng=Stream(2)), expected, rtol=0, atol=1e-12)


def test_every_image_has_a_mask_of_its_own():
    masks = RandomFourier(drop=0.4).mask(X, Stream(2))
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(RandomFourier(drop=0.4).mask(X.float(), Stream(2)), masks), "whatever the dtype"
