"""What the tests of the attacks of Kang et al. share: an effect against a slow reference of its own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.rng import Stream

SIZES = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 33, 50), (1, 8, 6), (1, 1, 1)]


def images(n, channels, height, width, seed=0):
    return Stream(seed).uniform(torch.empty(n, 0, dtype=torch.float64), (channels, height, width))


def weights(x):
    return Stream(9).normal(x)


def linear(x):
    """A linear objective on whole images: what its gradient is, finite differences can say."""
    w = weights(x)
    return lambda point, rows: (point * w[rows]).flatten(1).sum(1)


def slope_at(effect, x, point):
    leaf = point.clone().requires_grad_(True)
    value = linear(x)(effect.render(leaf, torch.arange(len(x))), torch.arange(len(x)))
    return torch.autograd.grad(value.sum(), leaf)[0]


def check_slope(slope: Tensor, point: Tensor, x: Tensor, reference, samples: int, step: float = 1e-6) -> None:
    """Compare slopes (N, ...) with central differences of `reference(variables of image i, i)` at some variables."""
    w, found = weights(x).numpy(), 0
    for i in range(len(x)):
        flat = point[i].flatten()
        order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(i))
        matters = slope[i].flatten()[order] != 0  # three that do not, and many that do
        for j in [*order[~matters][:3].tolist(), *order[matters][:samples].tolist()]:
            moved = []
            for sign in (1, -1):
                there = flat.clone()
                there[j] += sign * step
                moved.append(float((reference(there.view_as(point[i]).numpy(), i) * w[i]).sum()))
            numeric = (moved[0] - moved[1]) / (2 * step)
            assert slope[i].flatten()[j].item() == pytest.approx(numeric, rel=1e-4, abs=1e-6), (i, j)
            found += numeric != 0
    assert found >= len(x) * min(samples, 3)


def check_one_step(attack, x, rng, moved: Tensor, reference) -> None:
    """Compare the images after one step with the reference at the variables that a slow step leads to."""
    out = attack.maximise(linear(x), x, rng=rng)
    slow = np.stack([reference(moved[i].numpy(), i) for i in range(len(x))])
    np.testing.assert_allclose(out.numpy(), slow, rtol=0, atol=1e-9)


def check_sizes_and_seeds(attack, sizes=SIZES) -> None:
    for channels, height, width in sizes:
        x = images(2, channels, height, width).float()
        outs = [attack.maximise(linear(x), x, rng=Stream(seed, torch.tensor([3, 4]))) for seed in (0, 0, 1)]
        assert outs[0].shape == x.shape
        assert bool(((outs[0] >= 0) & (outs[0] <= 1)).all())
        assert torch.equal(outs[0], outs[1])
        if height * width > 1:
            assert not torch.equal(outs[0], outs[2])
            twice = x[:1].expand(2, -1, -1, -1)
            first, second = attack.maximise(lambda p, rows: p.flatten(1).sum(1), twice)
            assert not torch.equal(first, second), "two positions, one effect"
