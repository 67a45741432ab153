import numpy as np
import pytest
import torch

from pellucid.errors import InputError
from pellucid.maths.discrepancy import compared_classes, discrepancy, discrepancy_bound


@pytest.fixture
def maps(generator):
    return torch.randn(2, 4, 3, 5, 2, generator=generator, dtype=torch.float64)  # before and after: 4 images, 3 classes


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("positions", ["mean", "sum"])
@pytest.mark.parametrize("squared", [False, True])
def test_the_formula_entry_by_entry(maps, p, positions, squared):
    found = discrepancy(maps[0], maps[1], p, positions=positions, squared=squared)
    for n in range(4):
        total = 0.0
        for c in range(3):
            moved = (maps[1, n, c] - maps[0, n, c]).numpy().ravel() / (10 if positions == "mean" else 1)
            length = np.abs(moved).sum() if p == 1 else np.sqrt((moved**2).sum())
            total += length**2 if squared else length
        assert found[n].item() == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("squared", [False, True])
def test_equal_maps_have_no_discrepancy_and_no_slope(maps, p, squared):
    after = maps[0].clone().requires_grad_(True)
    found = discrepancy(maps[0], after, p, squared=squared)
    (slope,) = torch.autograd.grad(found.sum(), after)
    assert torch.equal(found, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("p", [1, 2])
def test_derivatives(maps, p):
    after = maps[1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a: discrepancy(maps[0], a, p), after)


def test_half_precision_is_widened(maps):
    found = discrepancy(maps[0].half(), maps[1].half(), 1, positions="sum")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), discrepancy(*maps, 1, positions="sum"), rtol=1e-2, atol=1e-2)


def test_no_images_and_any_shape_of_map(maps):
    assert discrepancy(maps[0, :0], maps[1, :0]).shape == (0,)
    flat = maps.flatten(3)
    torch.testing.assert_close(discrepancy(*flat), discrepancy(*maps))
    with pytest.raises(InputError, match=r"\(N, M, ...\) of one shape"):
        discrepancy(maps[0], maps[1, :, :2])
    with pytest.raises(InputError, match=r"\(N, M, ...\) of one shape"):
        discrepancy(maps[0, 0, 0], maps[1, 0, 0])


def test_words_and_norms_that_do_not_exist_are_refused(maps):
    for wrong in ({"p": 3}, {"positions": "average"}):
        with pytest.raises(InputError, match="p must be 1 or 2 and positions mean or sum"):
            discrepancy(*maps, **wrong)
    with pytest.raises(InputError, match="one, two, all"):
        compared_classes("three", torch.tensor([0]), torch.tensor([1]), 3)


def test_the_classes_that_are_compared():
    y, target = torch.tensor([2, 0]), torch.tensor([1, 3])
    assert compared_classes("one", y, target, 4).tolist() == [[2], [0]]
    assert compared_classes("two", y, target, 4).tolist() == [[2, 1], [0, 3]]
    assert compared_classes("all", y, target, 4).tolist() == [[0, 1, 2, 3]] * 2


def test_the_bound_is_reached_by_maps_that_move_evenly():
    """Lower the map of y everywhere by (f_y - f_t)/2 and raise that of t as much: a tie, at exactly the bound."""
    y, target = torch.tensor([0]), torch.tensor([1])
    before = torch.tensor([[[[3.0, 5.0], [1.0, 7.0]], [[0.0, 2.0], [1.0, 1.0]]]])
    logits = before.mean((2, 3))
    shift = (logits[:, 0] - logits[:, 1]) / 2
    after = before + torch.stack([-shift, shift], 1)[:, :, None, None]
    bound = discrepancy_bound(logits, y, target)
    assert after.mean((2, 3))[0, 0] == after.mean((2, 3))[0, 1]
    torch.testing.assert_close(discrepancy(before, after), bound)
    less = before + 0.99 * torch.stack([-shift, shift], 1)[:, :, None, None]
    assert discrepancy(before, less) < bound  # and no tie
    torch.testing.assert_close(discrepancy(before, after, positions="sum"), 4 * bound)  # other units
