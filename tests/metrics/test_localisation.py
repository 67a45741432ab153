import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.metrics import average_precision, chance, evidence, mass_on_object, pointing_game, rank_accuracy, roc_auc

MEASURES = [mass_on_object, rank_accuracy, average_precision, roc_auc]


@pytest.fixture
def case(generator):
    maps = torch.randn(8, 5, 7, generator=generator)
    maps[4:] = maps[4:].round()  # many ties
    return maps, torch.rand(8, 5, 7, generator=generator) > 0.7


def place_in_top(values, on):
    """Return the expected hits of the top, its ties broken by lot, over all pixels one by one."""
    size, hits, taken = sum(on), 0.0, 0
    for level in sorted(set(values), reverse=True):
        group = [o for v, o in zip(values, on) if v == level]
        use = min(len(group), size - taken)
        hits, taken = hits + use * sum(group) / len(group), taken + use
    return hits / size


def test_mass_is_the_share_of_magnitudes_on_the_object(case):
    maps, mask = case
    shares = mass_on_object(maps, mask)
    for n in range(8):
        inside = sum(abs(float(v)) for v, on in zip(maps[n].flatten(), mask[n].flatten()) if on)
        assert float(shares[n]) == pytest.approx(inside / float(maps[n].double().abs().sum()), abs=1e-12)
    assert shares.dtype == torch.float64


def test_average_precision_and_roc_are_scikit_learns_also_with_ties(case):
    maps, mask = case
    assert len(set(maps[4].abs().flatten().tolist())) < 10
    for n in range(8):
        labels, scores = mask[n].flatten().numpy(), maps[n].abs().flatten().numpy()
        assert float(average_precision(maps, mask)[n]) == pytest.approx(average_precision_score(labels, scores))
        assert float(roc_auc(maps, mask)[n]) == pytest.approx(roc_auc_score(labels, scores))


def test_rank_accuracy_counts_hits_in_the_top_and_ties_at_its_edge_by_their_share(case):
    maps, mask = case
    for n in range(8):
        expected = place_in_top(maps[n].abs().flatten().tolist(), mask[n].flatten().tolist())
        assert float(rank_accuracy(maps, mask)[n]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_perfect_map_scores_one_and_its_opposite_the_least(measure, case):
    _, mask = case
    perfect = measure(mask.double(), mask)
    assert torch.equal(perfect, torch.ones(8, dtype=torch.float64))
    least = chance(mask) if measure is average_precision else torch.zeros(8, dtype=torch.float64)
    assert float(chance(mask).max()) < 0.5
    torch.testing.assert_close(measure((~mask).double(), mask), least)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_constant_map_scores_chance(measure, case):
    _, mask = case
    expected = torch.full((8,), 0.5, dtype=torch.float64) if measure is roc_auc else chance(mask)
    torch.testing.assert_close(measure(torch.full((8, 5, 7), 0.3), mask), expected)
    if measure is mass_on_object:
        assert bool(measure(torch.zeros(8, 5, 7), mask).isnan().all())
    else:
        torch.testing.assert_close(measure(torch.zeros(8, 5, 7), mask), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_nowhere_everywhere_and_nan_are_undefined(measure):
    maps = torch.arange(24.0).view(4, 2, 3)
    maps[2, 0, 0], maps[3, 1, 1] = math.nan, math.inf
    mask = torch.zeros(4, 2, 3, dtype=torch.bool)
    mask[1], mask[2:, 0, 1] = True, True
    assert bool(measure(maps, mask).isnan().all())
    assert not pointing_game(maps[[0, 2, 3]], mask[[0, 2, 3]]).any()


@pytest.mark.parametrize("measure", [*MEASURES, pointing_game])
def test_batches_of_none_and_of_one(measure, case):
    maps, mask = case
    assert measure(maps[:0], mask[:0]).shape == (0,)
    assert measure(torch.zeros(0, 2, 2), mask[:0]).shape == (0,)
    alone = torch.cat([measure(maps[n : n + 1], mask[n : n + 1]) for n in range(8)])
    torch.testing.assert_close(alone, measure(maps, mask), rtol=0, atol=0)
    assert measure(torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).shape == (1,)


def test_pointing_asks_for_the_largest_value(case):
    maps, mask = case
    hits = pointing_game(maps, mask)
    for n in range(8):
        size = maps[n].abs()
        places = [tuple(p.tolist()) for p in (size == size.max()).nonzero()]
        assert bool(hits[n]) == any(bool(mask[n][p]) for p in places)
    assert hits.dtype == torch.bool
    assert 0 < int(hits.sum()) < 8


def test_a_constant_map_points_nowhere():
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[:, 1] = True
    maps = torch.full((2, 3, 3), 0.4)
    maps[1, 1, 1] = 0.5
    assert pointing_game(maps, mask).tolist() == [False, True]


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 5, 20])
def test_tolerance_is_a_distance_to_the_object(tolerance, generator):
    maps = torch.rand(30, 9, 13, generator=generator)
    mask = torch.zeros(30, 9, 13, dtype=torch.bool)
    mask[:, 4, 3] = mask[:, 0, 12] = True
    hits = pointing_game(maps, mask, tolerance=tolerance)
    for n in range(30):
        row, column = divmod(int(maps[n].argmax()), 13)
        near = min((row - 4) ** 2 + (column - 3) ** 2, row**2 + (column - 12) ** 2)
        assert bool(hits[n]) == (near <= tolerance**2)


def test_the_sign_says_what_counts():
    maps = torch.tensor([[[[2.0, -3.0, 0.0]], [[-1.0, -3.0, 1.0]]]])
    mask = torch.tensor([[[False, True, False]]])
    assert evidence(maps, (1, 3)).tolist() == [[[3.0, 6.0, 1.0]]]
    assert evidence(maps, (1, 3), "positive").tolist() == [[[1.0, 0.0, 1.0]]]
    assert evidence(-maps[:, 0], (1, 3), "positive").tolist() == [[[0.0, 3.0, 0.0]]]
    assert float(mass_on_object(maps, mask)) == pytest.approx(0.6)
    assert float(mass_on_object(maps, mask, sign="positive")) == 0
    assert pointing_game(maps, mask).tolist() == [True]
    assert pointing_game(maps, mask, sign="positive").tolist() == [False]


def test_small_maps_are_resized_bilinearly_after_the_sign_was_read(generator):
    maps = torch.randn(3, 4, 2, generator=generator)
    big = functional.interpolate(maps.clamp_min(0)[:, None].double(), (8, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(evidence(maps, (8, 6), "positive"), big[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_measured_in_double(dtype, case):
    maps, mask = case
    for measure in MEASURES:
        found = measure(maps.to(dtype), mask)
        torch.testing.assert_close(found, measure(maps.to(dtype).double(), mask), rtol=0, atol=0)


def test_chance_is_the_share_of_pixels():
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0], mask[1, 1, 1] = True, True
    torch.testing.assert_close(chance(mask), torch.tensor([1 / 2, 1 / 6], dtype=torch.float64))


def test_what_is_refused(case):
    maps, mask = case
    for measure in [*MEASURES, pointing_game]:
        with pytest.raises(InputError, match="truth values"):
            measure(maps, mask.float())
        with pytest.raises(InputError, match="one per map"):
            measure(maps, mask[:3])
        with pytest.raises(InputError, match="larger than the image"):
            measure(maps, mask[:, :4])
        with pytest.raises(InputError, match=r"maps must be \(N, h, w\)"):
            measure(maps.flatten(1), mask)
        with pytest.raises(InputError, match="sign must be one of"):
            measure(maps, mask, sign="both")
    with pytest.raises(InputError, match="tolerance"):
        pointing_game(maps, mask, tolerance=-1)
    with pytest.raises(InputError, match="truth values"):
        chance(maps)
