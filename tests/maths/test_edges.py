import pytest
import torch
from scipy import ndimage

from pellucid.maths.edges import luma, sobel
from pellucid.rng import Stream

X = Stream(1).uniform(torch.empty(2, 0, dtype=torch.float64), (3, 7, 5))


def test_luma_by_hand():
    colours = torch.eye(3, dtype=torch.float64)[:, :, None, None]  # red, green, blue
    assert luma(colours).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert torch.equal(luma(X[:, :1]), X[:, 0])
    torch.testing.assert_close(luma(X[:, :2]), (X[:, 0] + X[:, 1]) / 2)


@pytest.mark.parametrize("size", [(7, 5), (1, 5), (2, 2), (1, 1)])
def test_it_is_scipys_sobel_with_the_edge_repeated(size):
    x = X[:, :, : size[0], : size[1]]
    for image, found in zip(luma(x).numpy(), sobel(x)):
        down, across = (ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1))
        torch.testing.assert_close(found.numpy(), (down**2 + across**2) ** 0.5, rtol=0, atol=1e-12)


def test_a_ramp_has_one_slope_inside():
    ramp = 0.1 * torch.arange(6, dtype=torch.float64).view(1, 1, 1, 6).expand(1, 1, 5, 6)
    assert sobel(ramp)[0, :, 1:-1].flatten().tolist() == pytest.approx([0.8] * 20)  # 8 times the slope
    torch.testing.assert_close(sobel(ramp.mT), sobel(ramp).mT)


def test_constants_have_none_exactly_and_no_images_none():
    x = torch.tensor([0.1, 0.7, 0.3]).view(1, 3, 1, 1).expand(2, 3, 6, 7)
    assert not sobel(x).any()
    assert sobel(X[:0]).shape == (0, 7, 5)
    assert sobel(X.half()).dtype == torch.float16
