import numpy as np
import pytest
import torch
from scipy import ndimage

from pellucid.maths.regions import filled, large_regions, otsu, spread
from pellucid.rng import Stream


def noise(share, size=(17, 13), n=6, seed=0):
    return Stream(seed).uniform(torch.empty(n, 0), size) < share


def spiral(side=21):
    """A single path that winds to the middle."""
    mask = np.zeros((side, side), dtype=bool)
    row, column, step = 1, 0, (0, 1)
    mask[row, column] = True
    for _ in range(side * side):
        for turn in (step, (step[1], -step[0])):
            ahead, beyond = ((row + m * turn[0], column + m * turn[1]) for m in (1, 2))
            inside = 0 <= ahead[0] < side and 0 <= ahead[1] < side
            free = not (0 <= beyond[0] < side and 0 <= beyond[1] < side and mask[beyond])
            if inside and free and not mask[ahead]:
                (row, column), step = ahead, turn
                mask[ahead] = True
                break
    return torch.from_numpy(mask)[None]


@pytest.mark.parametrize("share", [0.3, 0.55, 0.65, 0.9])
def test_values_spread_over_scipys_regions(share):
    mask = noise(share)
    values = Stream(3).words(torch.empty(6, 0), (17, 13)) % 1000
    found = spread(values.abs(), mask)
    for i in range(6):
        label, count = ndimage.label(mask[i].numpy())
        expected = np.zeros((17, 13), dtype=np.int64)
        for region in range(1, count + 1):
            expected[label == region] = values[i].abs().numpy()[label == region].max()
        assert found[i].tolist() == expected.tolist()


def test_a_spiral_is_one_region():
    mask = spiral()
    assert mask.sum() > 150
    values = torch.zeros(mask.shape, dtype=torch.int64)
    values[0, 1, 0] = 5
    assert torch.equal(spread(values, mask), 5 * mask.long())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.65])
def test_holes_are_scipys(share):
    mask = noise(share, seed=1)
    for one, found in zip(mask, filled(mask)):
        assert found.tolist() == ndimage.binary_fill_holes(one.numpy()).tolist()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.2, 1.0])
def test_small_regions_are_dropped(share):
    mask = noise(0.5, seed=2)
    for one, found in zip(mask, large_regions(mask, share)):
        label, count = ndimage.label(one.numpy())
        sizes = np.bincount(label.ravel(), minlength=count + 1)
        large = [r for r in range(1, count + 1) if sizes[r] >= share * sizes[1:].max()]
        assert found.tolist() == np.isin(label, large).tolist()


def test_nothing_and_everything():
    for mask in (torch.zeros(2, 3, 4, dtype=torch.bool), torch.ones(2, 3, 4, dtype=torch.bool)):
        assert torch.equal(large_regions(mask, 0.1), mask)
        assert torch.equal(filled(mask), mask)
    empty = torch.zeros(0, 3, 4, dtype=torch.bool)
    assert large_regions(empty, 0.1).shape == filled(empty).shape == (0, 3, 4)
    assert otsu(empty.double()).shape == (0, 1, 1)


def spread_between(values, level):
    low, high = values[values <= level], values[values > level]
    if not len(low) or not len(high):
        return 0.0
    return len(low) * len(high) * (low.mean() - high.mean()).item() ** 2


@pytest.mark.parametrize("seed", range(5))
def test_otsu_parts_best_of_all_levels(seed):
    levels = (255 * Stream(seed).uniform(torch.empty(1, 0), (9, 8)) ** 2).round().double()
    levels[0, :3] = 255 - levels[0, :3] / 4
    best = max(spread_between(levels, level) for level in range(255))
    threshold = otsu(levels / 255)
    assert spread_between(levels, threshold.item() * 255) == pytest.approx(best, rel=1e-9)


def test_otsu_on_two_values_and_on_one():
    two = torch.tensor([[[0.2, 0.2, 0.8]]])
    assert 0.2 < otsu(two).item() < 0.8
    for value in (0.0, 0.4, 1.0):
        constant = torch.full((1, 2, 3), value)
        assert not (constant > otsu(constant)).any()
