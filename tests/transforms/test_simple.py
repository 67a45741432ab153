"""Noise, blur, grayscale and edges."""

import math

import pytest
import torch
from scipy import ndimage

from pellucid.maths.edges import sobel
from pellucid.rng import Stream
from pellucid.transforms import Blur, Edges, GaussianNoise, Grayscale

X = Stream(1).uniform(torch.empty(4, 0, dtype=torch.float64), (3, 16, 12))


def test_noise_has_the_size_asked_for_and_is_clipped():
    grey = torch.full((200, 3, 8, 8), 0.5, dtype=torch.float64)
    noise = GaussianNoise(sigma=0.05)(grey, rng=Stream(2)) - 0.5
    n = noise.numel()
    assert abs(noise.mean()) < 4 * 0.05 / math.sqrt(n)
    assert noise.std() == pytest.approx(0.05, rel=4 / math.sqrt(2 * n))
    within = (noise.abs() < 0.05).double().mean()
    assert within == pytest.approx(0.6827, abs=4 * 0.5 / math.sqrt(n))  # normal, not only of that spread
    neighbours = (noise[:, 0] * noise[:, 1]).mean() / 0.05**2
    assert abs(neighbours) < 4 / math.sqrt(n / 3)
    whole = GaussianNoise(sigma=0.5, clip=False)(X, rng=Stream(2))
    assert whole.min() < -0.5
    assert torch.equal(GaussianNoise(sigma=0.5)(X, rng=Stream(2)), whole.clamp(0, 1))


def test_no_noise_no_blur():
    assert torch.equal(GaussianNoise(sigma=0)(X), X)
    assert torch.equal(Blur(sigma=0)(X), X)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.0])
def test_blur_is_scipys(sigma):
    found = Blur(sigma=sigma)(X)
    for image, new in zip(X.flatten(0, 1), found.flatten(0, 1)):
        theirs = ndimage.gaussian_filter(image.numpy(), sigma, mode="mirror", truncate=3)
        torch.testing.assert_close(new.numpy(), theirs, rtol=0, atol=1e-12)


def test_grey_by_hand():
    colours = torch.eye(3, dtype=torch.float64)[:, :, None, None].expand(3, 3, 2, 2)
    found = Grayscale()(colours)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(found[:, :, 0, 0], weights[:, None].expand(3, 3))
    torch.testing.assert_close(Grayscale()(found), found)
    assert torch.equal(Grayscale()(X[:, :1]), X[:, :1])
    white = torch.ones(1, 3, 2, 2)
    torch.testing.assert_close(Grayscale()(white), white, rtol=0, atol=1e-6)


def test_edges_of_a_square():
    x = torch.full((1, 3, 9, 9), 0.2)
    x[:, :, 3:6, 3:6] = 0.6
    found = Edges()(x)
    assert torch.equal(found[:, 0], found[:, 2])
    dark = found[0, 0] < 0.9
    inner, outer = torch.zeros_like(dark), torch.zeros_like(dark)
    inner[4, 4], outer[2:7, 2:7] = True, True
    assert torch.equal(dark, outer & ~inner), "a band two pixels wide around the square"
    assert found[0, 0].min() == pytest.approx(0, abs=1e-6)
    faint = Edges()((x - 0.2) / 10 + 0.3)
    torch.testing.assert_close(faint, found, rtol=0, atol=1e-5)  # contrast and brightness do not count


def test_edges_are_the_sobel_magnitude_and_its_threshold():
    share = sobel(X) / sobel(X).amax((1, 2), keepdim=True)
    torch.testing.assert_close(Edges()(X), (1 - share)[:, None].expand_as(X))
    found = Edges(threshold=0.4)(X)
    assert torch.equal(found[:, 1], 1 - (share > 0.4).double())
    assert set(found.unique().tolist()) == {0, 1}


def test_no_edges_in_what_is_constant():
    flat = torch.full((1, 3, 5, 5), 0.7)
    flat[:, :, 2, 2] += 1e-4  # less than a 256th
    assert Edges()(flat).min() > 0.95
    assert torch.equal(Edges()(torch.full((2, 1, 4, 4), 0.3)), torch.ones(2, 1, 4, 4))
