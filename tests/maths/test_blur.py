import math

import pytest
import torch
from scipy import ndimage

from pellucid.maths.blur import gaussian_blur
from pellucid.rng import Stream


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_it_is_scipys_filter_with_mirrored_edges(sigma):
    x = Stream(1).uniform(torch.empty(2, 0, dtype=torch.float64), (3, 20, 15))
    found = gaussian_blur(x, sigma)
    for n in range(2):
        for c in range(3):
            theirs = ndimage.gaussian_filter(x[n, c].numpy(), sigma, mode="mirror", radius=max(1, round(3 * sigma)))
            torch.testing.assert_close(found[n, c], torch.from_numpy(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 1.3, 4.0])
@pytest.mark.parametrize("size", [(9, 5), (1, 8), (6, 2), (3, 3), (2, 1), (1, 1)])
def test_on_small_images_it_is_scipys_filter_no_wider_than_the_image(size, sigma):
    x = Stream(2).uniform(torch.empty(1, 0, dtype=torch.float64), (1, *size))
    radii = [min(max(1, round(3 * sigma)), side - 1) for side in size]
    theirs = ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="mirror", radius=radii)
    torch.testing.assert_close(gaussian_blur(x, sigma)[0, 0], torch.from_numpy(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.3, 2.0])  # 3 sigma is no half: scipy rounds it up, Python to even
def test_cut_at_three_sigma_is_what_scipy_calls_truncate_3(sigma):
    x = Stream(3).uniform(torch.empty(1, 0, dtype=torch.float64), (1, 20, 14))
    theirs = ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="mirror", truncate=3)
    torch.testing.assert_close(gaussian_blur(x, sigma)[0, 0], torch.from_numpy(theirs), rtol=0, atol=1e-12)


def test_two_pixels_by_hand():
    two = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    aside = math.exp(-0.5)  # sigma = 1, one pixel away: the neighbour, and its mirror image on the other side
    share = 2 * aside / (1 + 2 * aside)
    assert gaussian_blur(two, 1.0).flatten().tolist() == pytest.approx([share, 1 - share], abs=1e-12)


def test_images_and_channels_do_not_mix():
    x = Stream(4).uniform(torch.empty(3, 0, dtype=torch.float64), (2, 5, 4))
    alone = [torch.cat([gaussian_blur(x[n : n + 1, c : c + 1], 1.0)[0] for c in (0, 1)]) for n in range(3)]
    torch.testing.assert_close(gaussian_blur(x, 1.0), torch.stack(alone), rtol=0, atol=1e-14)
    assert gaussian_blur(x[:0], 1.0).shape == (0, 2, 5, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_stays(dtype):
    x = Stream(4).uniform(torch.empty(3, 0, dtype=torch.float64), (2, 6, 5))
    found = gaussian_blur(x.to(dtype), 1.0)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), gaussian_blur(x, 1.0), rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (3, 2), (3, 3)])
def test_constants_survive_and_small_images_are_no_error(size):
    x = torch.full((2, 1, *size), 0.3, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(x, 4.0), x)


def test_it_is_differentiable():
    x = Stream(1).uniform(torch.empty(1, 0, dtype=torch.float64), (1, 5, 4)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda images: gaussian_blur(images, 1.0).square(), (x,))
