"""The diamond-square algorithm (Fournier, Fussell & Carpenter 1982) on a torus, as a function of its random numbers."""

import torch
from torch import Tensor


def plasma(v: Tensor, size: int, decay: float = 2.0, reach: int = 1) -> Tensor:
    """Return height maps (N, size, size), linear in the numbers v (N, size^2 - 1) in [0, 1]; size is a power of two.

    From the one corner of a torus, height 0, each level halves the grid: first every middle of a square gets the mean
    of its four corners plus w (2 v - 1), then every middle of an edge the mean of its two ends and of the middles of
    the two squares beside it, plus w (2 v - 1); w starts at 1 and is divided by `decay` at each level. v holds, level
    by level, the numbers of the middles, of the horizontal edges and of the vertical edges, row by row.
    reach: how many squares away the second square beside an edge is looked for; 1 is next to it.
    """
    grid, amplitude, used, side = v.new_zeros((len(v), 1, 1)), 1.0, 0, 1
    while side < size:
        numbers = amplitude * (2 * v[:, used : used + 3 * side * side].view(-1, 3, side, side) - 1)
        right, below = grid.roll(-1, 2), grid.roll(-1, 1)
        middle = (grid + right + below + below.roll(-1, 2)) / 4 + numbers[:, 0]
        across = (grid + right + middle + middle.roll(reach, 1)) / 4 + numbers[:, 1]
        down = (grid + below + middle + middle.roll(reach, 2)) / 4 + numbers[:, 2]
        rows = (torch.stack((grid, across), 3), torch.stack((down, middle), 3))
        grid = torch.stack([row.flatten(2) for row in rows], 2).flatten(1, 2)
        used, side, amplitude = used + 3 * side * side, 2 * side, amplitude / decay
    return grid


def unit_range(maps: Tensor) -> Tensor:
    """Return each map (N, ...) shifted and scaled to reach from 0 to 1; a constant map becomes 0. Differentiable."""
    flat = maps.flatten(1)
    low, high = (v.view(-1, *[1] * (maps.ndim - 1)) for v in (flat.amin(1), flat.amax(1)))
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))
