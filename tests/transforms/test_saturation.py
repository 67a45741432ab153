import pytest
import torch

from pellucid.errors import SpecError
from pellucid.rng import Stream
from pellucid.transforms import Saturation

X = Stream(1).uniform(torch.empty(3, 0, dtype=torch.float64), (3, 8, 6))
LEVELS = (0.25, 0.5, 1, 2, 4, 8, 16, 64, 1024)


def grey(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("p", "value", "expected"),
    [
        (4, 0.625, 0.75),  # |2v - 1| = 1/4, its root 1/2, halved and from 1/2
        (4, 0.375, 0.25),
        (1, 0.75, 0.625),  # 1/2 squared is 1/4
        (1, 0.25, 0.375),
        (0.5, 0.75, 0.53125),  # to the fourth: 1/16
        (8, 0.53125, 0.75),  # (1/16)^(1/4)
        (0.25, 0.75, 0.501953125),  # to the eighth: 1/256
    ],
)
def test_by_hand(p, value, expected):
    assert Saturation(p=p)(grey(value)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("p", LEVELS)
def test_the_formula_pixel_by_pixel(p):
    found = Saturation(p=p)(X)
    for v, new in zip(X.flatten().tolist(), found.flatten().tolist()):
        signed = 2 * v - 1
        assert new == pytest.approx((1 if signed > 0 else -1) * abs(signed) ** (2 / p) / 2 + 0.5, abs=1e-12)


def test_two_changes_nothing():
    torch.testing.assert_close(Saturation(p=2)(X), X, rtol=0, atol=1e-12)
    torch.testing.assert_close(Saturation(p=2)(X.float()), X.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", LEVELS)
def test_black_white_and_the_middle_stay(p):
    assert Saturation(p=p)(grey(0, 0.5, 1)).flatten().tolist() == [0, 0.5, 1]


def test_the_limits():
    binary, level = Saturation(p=1e12)(X), Saturation(p=1e-12)(X.clamp(1e-6, 1 - 1e-6))
    torch.testing.assert_close(binary, (X > 0.5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(level, torch.full_like(X, 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [0.5, 8, 64])
def test_one_level_undoes_another(p):
    back = Saturation(p=4 / p)(Saturation(p=p)(X))
    torch.testing.assert_close(back, X, rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [0, -1, float("inf"), "much"])
def test_levels_that_are_none(p):
    with pytest.raises(SpecError, match="p"):
        Saturation(p=p)
