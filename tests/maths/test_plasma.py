import pytest
import torch

from pellucid.maths.plasma import plasma, unit_range


def slow_plasma(numbers, size, decay, reach):
    """Diamond-square as in a textbook: one point at a time, on a torus."""
    heights = {(0, 0): 0.0}
    numbers, step, amplitude = iter(numbers), size, 1.0
    while step > 1:
        half = step // 2
        corners = [(i, j) for i in range(0, size, step) for j in range(0, size, step)]

        def mean(*points):
            return sum(heights[i % size, j % size] for i, j in points) / 4

        for i, j in corners:
            around = mean((i, j), (i, j + step), (i + step, j), (i + step, j + step))
            heights[i + half, j + half] = around + amplitude * (2 * next(numbers) - 1)
        away = half - reach * step  # from an edge to the middle of the second square beside it
        for i, j in corners:  # middles of the upper edges
            around = mean((i, j), (i, j + step), (i + half, j + half), (i + away, j + half))
            heights[i, j + half] = around + amplitude * (2 * next(numbers) - 1)
        for i, j in corners:  # middles of the left edges
            around = mean((i, j), (i + step, j), (i + half, j + half), (i + half, j + away))
            heights[i + half, j] = around + amplitude * (2 * next(numbers) - 1)
        step, amplitude = half, amplitude / decay
    return [[heights[i, j] for j in range(size)] for i in range(size)]


@pytest.mark.parametrize(("size", "decay", "reach"), [(2, 2.0, 1), (16, 2.0, 1), (16, 1.75, 1), (16, 2.0, 2)])
def test_as_point_by_point(generator, size, decay, reach):
    v = torch.rand(3, size * size - 1, generator=generator, dtype=torch.float64)
    slow = torch.tensor([slow_plasma(row.tolist(), size, decay, reach) for row in v], dtype=torch.float64)
    torch.testing.assert_close(plasma(v, size, decay, reach), slow, rtol=0, atol=1e-12)


def test_unit_range_reaches_both_ends_and_leaves_flat_maps_at_zero(generator):
    maps = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    maps[1] = 7.0
    out = unit_range(maps)
    assert out.flatten(1).amin(1).tolist() == [0, 0, 0]
    assert out.flatten(1).amax(1).tolist() == [1, 0, 1]
    torch.testing.assert_close(out[2], (maps[2] - maps[2].min()) / (maps[2].max() - maps[2].min()))
    leaf = maps.requires_grad_(True)
    torch.autograd.gradcheck(unit_range, leaf[[0, 2]])
