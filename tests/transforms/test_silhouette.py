import pytest
import torch
from sklearn.datasets import load_digits

from pellucid.rng import Stream
from pellucid.transforms import Silhouette

SIDE = 64
ROW, COLUMN = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
SHAPES = {
    "disc": (ROW - 30).square() + (COLUMN - 33).square() < 15**2,
    "box": (ROW > 20) & (ROW < 44) & (COLUMN > 12) & (COLUMN < 50),
    "triangle": (ROW > 15) & (ROW < 50) & ((COLUMN - 32).abs() < (ROW - 15) / 2),
}


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


def painted(mask, inside, outside, noise=0.0):
    x = torch.where(mask, torch.tensor(inside).view(3, 1, 1), torch.tensor(outside).view(3, 1, 1))[None]
    return (x + noise * Stream(1).normal(x)).clamp(0, 1)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((0.8, 0.2, 0.1), (0.2, 0.7, 0.3)),
        ((0.1, 0.1, 0.1), (0.9, 0.9, 0.9)),
        ((0.9, 0.9, 0.9), (0.2, 0.2, 0.2)),
        ((0.2, 0.5, 0.8), (0.75, 0.35, 0.2)),
    ],
)
def test_an_object_on_plain_ground_is_found(name, inside, outside):
    for noise in (0.0, 0.05):
        found = Silhouette()(painted(SHAPES[name], inside, outside, noise))
        assert set(found.unique().tolist()) == {0, 1}
        assert torch.equal(found[:, 0], found[:, 1])
        assert overlap(found[0, 0] == 0, SHAPES[name]) > 0.85


def test_a_coloured_object_on_ground_of_changing_brightness():
    ground = (0.15 + 0.7 * COLUMN / SIDE)[None, None].expand(1, 3, SIDE, SIDE)
    colour = torch.tensor([0.8, 0.3, 0.2]).view(1, 3, 1, 1)
    x = torch.where(SHAPES["disc"], colour, ground)
    assert overlap(Silhouette()(x)[0, 0] == 0, SHAPES["disc"]) > 0.85


def test_a_ring_is_filled():
    disc = SHAPES["disc"]
    hole = (ROW - 30).square() + (COLUMN - 33).square() < 8**2
    found = Silhouette()(painted(disc & ~hole, (0.1, 0.1, 0.1), (0.9, 0.9, 0.9)))
    assert overlap(found[0, 0] == 0, disc) > 0.85


def test_specks_are_dropped_unless_wanted():
    mask = SHAPES["disc"].clone()
    mask[50:54, 50:54] = True
    x = painted(mask, (0.1, 0.1, 0.1), (0.9, 0.9, 0.9))
    assert not (Silhouette(centre=5)(x)[0, 0] == 0)[48:56, 48:56].any()
    assert (Silhouette(centre=5, smallest=0)(x)[0, 0] == 0)[51:53, 51:53].all()


def test_the_prior_decides_between_two_objects():
    mask = SHAPES["disc"] | ((ROW > 20) & (ROW < 40) & (COLUMN < 8))
    x = painted(mask, (0.1, 0.1, 0.1), (0.9, 0.9, 0.9))
    near, anywhere = ((Silhouette(centre=c)(x)[0, 0] == 0)[22:38, 1:6].float().mean() for c in (0.25, 5))
    assert near == 0
    assert anywhere > 0.9


def test_without_an_object_all_is_white():
    for x in (torch.full((1, 3, 20, 20), 0.3), torch.rand(1, 3, 1, 1), torch.zeros(2, 1, 5, 4)):
        assert torch.equal(Silhouette()(x), torch.ones_like(x))
    almost = 0.3 + 1e-5 * Stream(1).uniform(torch.empty(1, 0), (3, 20, 20))
    assert torch.equal(Silhouette()(almost), torch.ones_like(almost))


def test_of_digits_the_strokes_and_what_they_enclose_is_black():
    data = load_digits()
    x = torch.as_tensor(data.images[:200], dtype=torch.float64)[:, None] / 16
    zeros = x[torch.as_tensor(data.target[:200]) == 0]
    black = Silhouette()(zeros)[:, 0] == 0
    assert zeros[:, 0, 3:5, 3:5].mean() < 0.2
    assert black[:, 3:5, 3:5].double().mean() > 0.5, "the inside of most zeros"
    assert black[:, :, 0].double().mean() < 0.1
    assert zeros[:, 0][black].mean() > 3 * zeros[:, 0][~black].mean()
