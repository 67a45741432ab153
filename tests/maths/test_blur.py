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


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (3, 2)])
def test_constants_survive_and_small_images_are_no_error(size):
    x = torch.full((2, 1, *size), 0.3, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(x, 4.0), x)


def test_it_is_differentiable_twice():
    x = Stream(1).uniform(torch.empty(1, 0, dtype=torch.float64), (1, 5, 4)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda images: gaussian_blur(images, 1.0).square(), (x,))
