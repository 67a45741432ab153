import itertools

import pytest
import torch

from pellucid.errors import InputError, SpecError
from pellucid.rng import Stream
from pellucid.transforms import PatchShuffle

X = Stream(1).uniform(torch.empty(40, 0, dtype=torch.float64), (3, 8, 12))


def patches(image, k):
    """Return the k x k patches of an image (C, H, W), row by row, as tuples."""
    height, width = image.shape[1] // k, image.shape[2] // k
    corners = itertools.product(range(0, image.shape[1], height), range(0, image.shape[2], width))
    return [tuple(image[:, i : i + height, j : j + width].flatten().tolist()) for i, j in corners]


def orders(found, k, given=X):
    """Return, for each image, which patch of the original lies at each place."""
    return [tuple(patches(x, k).index(p) for p in patches(new, k)) for x, new in zip(given, found)]


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("k", [2, 4])
def test_whole_patches_change_places_and_all_are_there(k, form):
    found = PatchShuffle(k=k, form=form)(X, rng=Stream(3))
    for order in orders(found, k):
        assert sorted(order) == list(range(k * k))
    torch.testing.assert_close(found.flatten(2).sort(2).values, X.flatten(2).sort(2).values, rtol=0, atol=0)


def test_one_patch_changes_nothing():
    for form in ("paper", "code"):
        assert torch.equal(PatchShuffle(k=1, form=form)(X), X)


def test_patches_of_single_pixels_are_a_permutation_of_the_pixels():
    x = X[:3, :, :, :8]
    found = PatchShuffle(k=8)(x)
    for image, new in zip(x, found):
        columns = image.flatten(1).T.tolist()
        assert sorted(columns) == sorted(new.flatten(1).T.tolist()), "channels stay together"


def test_all_permutations_are_equally_likely():
    n = 4800
    x = torch.arange(4.0, dtype=torch.float64).view(1, 1, 2, 2).expand(n, 1, 2, 2) / 3
    for form in ("paper", "code"):
        found = (3 * PatchShuffle(k=2, form=form)(x, rng=Stream(5))).round().long().flatten(1)
        counts = torch.unique(found, dim=0, return_counts=True)[1]
        assert len(counts) == 24
        assert ((counts - n / 24).square() / (n / 24)).sum() < 45  # chi squared, 23 degrees: 1 in 250


def test_the_code_rebuilds_columns_first():
    """What the paper's form puts at place (i, j) the authors' puts at (j, i)."""
    paper, code = (PatchShuffle(k=4, form=form)(X, rng=Stream(3)) for form in ("paper", "code"))
    for a, b in zip(orders(paper, 4), orders(code, 4)):
        assert [a[4 * i + j] for i in range(4) for j in range(4)] == [b[4 * j + i] for i in range(4) for j in range(4)]
    assert not torch.equal(paper, code)


def test_what_cannot_be_cut_is_refused_with_what_can():
    x = torch.zeros(1, 1, 28, 42)
    with pytest.raises(InputError, match=r"28 x 42 .* 8 x 8 .* k may be 1, 2, 7, 14"):
        PatchShuffle(k=8)(x)
    with pytest.raises(InputError, match=r"k may be 1, 2$"):
        PatchShuffle(k=3, rest="stay")(x[:, :, :2, :2])
    with pytest.raises(SpecError, match="k"):
        PatchShuffle(k=0)


@pytest.mark.parametrize("k", [3, 5])
def test_what_is_over_stays(k):
    x = X[:, :, :, :11]
    found = PatchShuffle(k=k, rest="stay")(x, rng=Stream(3))
    tall, wide = k * (8 // k), k * (11 // k)
    top, left = (8 - tall) // 2, (11 - wide) // 2
    inside = (slice(None), slice(None), slice(top, top + tall), slice(left, left + wide))
    for order in orders(found[inside], k, x[inside]):
        assert sorted(order) == list(range(k * k))
    assert len(set(orders(found[inside], k, x[inside]))) == len(x)
    outside = torch.ones_like(x, dtype=torch.bool)
    outside[inside] = False
    assert torch.equal(found[outside], x[outside])
    assert torch.equal(PatchShuffle(k=4, rest="stay")(X), PatchShuffle(k=4)(X))
