"""The rank correlation of maps with edges, against SciPy and on images whose edges are known."""

import pytest
import torch
from scipy import ndimage, stats

from pellucid.errors import InputError
from pellucid.metrics import contour_correlation
from pellucid.rng import Stream


def drawn(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return Stream(seed).uniform(torch.empty(n, 0, dtype=torch.float64), shape)


def edges(image: torch.Tensor) -> torch.Tensor:
    """Return SciPy's Sobel magnitude of a grey image (1, H, W)."""
    grey = image[0].numpy()
    return torch.from_numpy(sum(ndimage.sobel(grey, axis=axis, mode="nearest") ** 2 for axis in (0, 1)) ** 0.5)


def test_it_is_spearmans_correlation_with_scipys_sobel_filter():
    images, maps = drawn(3, 1, 9, 11), drawn(3, 2, 9, 11, seed=1) - 0.5
    found = contour_correlation(maps, images)
    for n in range(3):
        sizes = maps[n].abs().sum(0)
        expected = stats.spearmanr(sizes.flatten().numpy(), edges(images[n]).flatten().numpy()).statistic
        assert float(found[n]) == pytest.approx(expected)


def test_a_map_of_the_edges_is_one_whatever_its_sign_and_unit_and_its_inverse_minus_one():
    images = drawn(4, 1, 8, 8)
    traced = torch.stack([edges(image) for image in images])
    one = torch.ones(4, dtype=torch.float64)
    signs = torch.where(drawn(4, 8, 8, seed=2) < 0.5, -1.0, 1.0)
    torch.testing.assert_close(contour_correlation(100 * signs * traced, images), one)
    torch.testing.assert_close(contour_correlation(traced[:, None].expand(-1, 3, -1, -1) / 7, images), one)
    torch.testing.assert_close(contour_correlation(traced.max() + 1 - traced, images), -one)


def test_coarse_maps_meet_the_mean_of_the_edges_below_them():
    images, maps = drawn(2, 1, 8, 12), drawn(2, 4, 3, seed=1)
    for n in range(2):
        means = edges(images[n]).reshape(4, 2, 3, 4).mean((1, 3))  # 2 x 4 pixels below each position
        expected = stats.spearmanr(maps[n].flatten().numpy(), means.flatten().numpy()).statistic
        assert float(contour_correlation(maps, images)[n]) == pytest.approx(expected)


def test_maps_and_images_without_structure_have_none():
    images, maps = drawn(2, 1, 6, 6), drawn(2, 6, 6, seed=1)
    assert bool(contour_correlation(torch.ones(2, 6, 6), images.float()).isnan().all())
    assert bool(contour_correlation(maps, torch.full_like(images, 0.3)).isnan().all())
    assert float(contour_correlation(maps, 5 * images - 2)[0]) == pytest.approx(
        float(contour_correlation(maps, images)[0])
    )


def test_refusals():
    images = torch.zeros(2, 1, 6, 6)
    for maps in (torch.zeros(2, 36), torch.zeros(1, 6, 6), torch.zeros(2, 1, 1, 6, 6)):
        with pytest.raises(InputError, match="as many maps"):
            contour_correlation(maps, images)
    with pytest.raises(InputError, match="finer than the images"):
        contour_correlation(torch.zeros(2, 6, 7), images)
