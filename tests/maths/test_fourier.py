import math

import numpy as np
import pytest
import torch

from pellucid.maths.fourier import conjugate, disc, disc_of_share, far_from_middle, filtered, squared_frequencies
from pellucid.rng import Stream

SIZES = [(8, 8), (7, 5), (6, 9), (1, 4), (1, 1)]


def numbers(*shape, seed=0):
    return Stream(seed).uniform(torch.empty(2, 0, dtype=torch.float64), shape)


@pytest.mark.parametrize("size", SIZES)
def test_frequencies_are_numpys(size):
    rows, columns = (np.fft.fftfreq(n) * n for n in size)
    np.testing.assert_allclose(squared_frequencies(size), rows[:, None] ** 2 + columns**2)


@pytest.mark.parametrize(
    ("radius", "modes"), [(0, 1), (0.99, 1), (1, 5), (1.41, 5), (math.sqrt(2), 9), (2, 13), (math.hypot(1, 2), 21)]
)
def test_discs_counted_by_hand(radius, modes):
    for size in ((16, 16), (15, 16), (7, 9)):
        assert disc(size, radius).sum() == modes


def test_the_lowest_frequency_of_even_sides_is_there_once():
    assert disc((4, 4), 2).sum() == 1 + 4 + 4 + 2  # f = 0; 1 away; (1, 1); (2, 0) and (0, 2): -2 is the same wave
    assert disc((4, 4), math.sqrt(8)).all()
    assert not disc((4, 4), math.sqrt(8) - 1e-6).all()


@pytest.mark.parametrize("radius", [math.hypot(a, b) for a in range(12) for b in range(12)])
def test_the_edge_is_included_whatever_its_rounding(radius):
    squared = squared_frequencies((40, 40))
    assert torch.equal(disc((40, 40), radius), squared <= round(radius**2))
    assert disc((40, 40), 1e300).all()


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9)])
def test_the_disc_of_a_share_is_the_nearest_of_all(size):
    squared, n = squared_frequencies(size), math.prod(size)
    discs = [squared < 0, *(squared <= level for level in squared.unique())]
    for share in (0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.99, 1):
        found = disc_of_share(size, share)
        assert any(torch.equal(found, one) for one in discs)
        assert abs(found.sum() / n - share) == min(abs(one.sum() / n - share) for one in discs)
    assert not disc_of_share(size, 0).any()
    assert disc_of_share(size, 1).all()


@pytest.mark.parametrize(
    ("low", "percent"), [(144, 1.7), (130, 7.0), (120, 13.5), (44, 87.9)]
)  # methods.md, section 7, counted on the authors' masks
def test_shares_of_the_authors_low_pass(low, percent):
    kept = far_from_middle((224, 224)) > low
    assert round(100 * kept.double().mean().item(), 1) == percent


@pytest.mark.parametrize(("high", "percent"), [(142, 97.8), (144, 98.3), (148, 99.1)])
def test_shares_of_the_authors_high_pass(high, percent):
    kept = far_from_middle((224, 224)) < high
    assert round(100 * kept.double().mean().item(), 1) == percent
    assert not kept[0, 0], "the mean is removed"


def test_what_the_authors_masks_keep_in_frequencies():
    radius = squared_frequencies((224, 224)).double().sqrt()
    kept = far_from_middle((224, 224)) > 144
    assert kept[0].nonzero().flatten().tolist() == [*range(20), *range(224 - 21, 224)]  # from -21 to 19: by hand
    assert kept[-1].nonzero().flatten().tolist() == [*range(21), *range(224 - 22, 224)]  # 22 beside the axis
    assert not kept[23, 23]
    assert radius[far_from_middle((224, 224)) < 144].min() == pytest.approx(13, abs=0.5)
    assert not torch.equal(conjugate(kept), kept)


def test_distances_by_hand():
    assert far_from_middle((6, 4))[2, 1] == 0
    assert far_from_middle((6, 4))[5, 0] == pytest.approx(math.hypot(3, 1))
    assert far_from_middle((1, 1)).tolist() == [[0]]


@pytest.mark.parametrize("size", SIZES)
def test_conjugates(size):
    spectrum = np.fft.fft2(numbers(*size)[0].numpy())
    assert conjugate(torch.from_numpy(spectrum)).numpy() == pytest.approx(spectrum.conj(), abs=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_real_part_of_numpys(size):
    x = numbers(3, *size)
    for mask in (numbers(3, *size, seed=1) > 0.5, numbers(1, *size, seed=2) > 0.3, numbers(*size, seed=3)[0] > 0.4):
        theirs = np.fft.ifft2(np.fft.fft2(x.numpy()) * mask.numpy()).real
        torch.testing.assert_close(filtered(x, mask), torch.from_numpy(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_and_its_complement_add_up_in_values_and_in_energy(size):
    x = numbers(3, *size)
    for radius in (0, 1, 2.5):
        mask = disc(size, radius)
        low, high = filtered(x, mask), filtered(x, ~mask)
        torch.testing.assert_close(low + high, x, rtol=0, atol=1e-12)
        energy = [part.square().sum((2, 3)) for part in (low, high, x)]
        torch.testing.assert_close(energy[0] + energy[1], energy[2], rtol=1e-12, atol=1e-12)
        modes = torch.fft.fft2(x).abs().square() / math.prod(size)
        torch.testing.assert_close(energy[0], (modes * mask).sum((2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_stays(dtype):
    x, mask = numbers(1, 6, 5), disc((6, 5), 1.5)
    found = filtered(x.to(dtype), mask)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), filtered(x, mask), rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert filtered(x[:0].to(dtype), mask).shape == (0, 1, 6, 5)
