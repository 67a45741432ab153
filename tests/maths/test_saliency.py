"""The pair search against every pair, one after the other."""

from itertools import combinations

import pytest
import torch

from pellucid.maths import saliency
from pellucid.maths.saliency import best_feature, best_pair


def by_every_pair(a, b, free):
    """The definition: in order of p, then q; only a strictly higher saliency replaces the best so far."""
    best, chosen = 0.0, None
    for p, q in combinations([i for i, allowed in enumerate(free) if allowed], 2):
        alpha, beta = a[p] + a[q], b[p] + b[q]
        if alpha > 0 and beta < 0 and (chosen is None or -alpha * beta > best):
            best, chosen = -alpha * beta, [p, q]
    return chosen


def assert_as_by_every_pair(a, b, free):
    pairs, found = best_pair(a, b, free)
    assert (pairs.dtype, pairs.shape, found.dtype) == (torch.int64, (len(a), 2), torch.bool)
    ours = [pair if there else None for pair, there in zip(pairs.tolist(), found.tolist())]
    assert ours == [by_every_pair(*lists) for lists in zip(a.tolist(), b.tolist(), free.tolist())]
    return found


def slopes(kind, n, features, generator):
    a, b, noise = torch.randn(3, n, features, generator=generator, dtype=torch.float64)
    return {
        "independent": (a, b),
        "anti-related": (a, a + 0.1 * noise),
        "opposite": (a, -a),
        "whole numbers": (a.round(), b.round()),  # -3..3: many ties, all sums and products exact
        "few numbers": (a.sign(), (2 * b).round()),
        "only zeros": (0 * a, 0 * b),
        "mostly zeros": (a.round() * (b > 1), b.round() * (a > 0)),
    }[kind]


KINDS = ["independent", "anti-related", "opposite", "whole numbers", "few numbers", "only zeros", "mostly zeros"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pair_is_that_of_every_pair(kind, generator):
    for features in (1, 2, 3, 17, 40):
        a, b = slopes(kind, 50, features, generator)
        free = torch.rand(50, features, generator=generator) < (1.0 if features == 17 else 0.7)
        found = assert_as_by_every_pair(a, b, free)
        if features == 40:
            assert bool(found.any()) == (kind != "only zeros")


def test_nothing_free_and_nobody_there():
    a = torch.ones(2, 5)
    assert best_pair(a, -a, a < 0)[1].tolist() == [False, False]
    assert best_pair(a[:0], a[:0], a[:0] > 0)[0].shape == (0, 2)
    assert best_feature(a, -a, a < 0)[1].tolist() == [False, False]


def front(features):
    """Slopes that fall in a as they rise in -b: no feature is beaten in both, all of them are candidates."""
    angle = torch.linspace(0.1, 1.5, features, dtype=torch.float64)
    return angle.cos(), -angle.sin()


@pytest.mark.parametrize("cells", [1, 1000, 1 << 20])
def test_where_every_feature_is_a_candidate_all_pairs_are_searched_in_pieces(cells, generator, monkeypatch):
    monkeypatch.setattr(saliency, "_CELLS", cells)
    monkeypatch.setattr(saliency, "_WIDE", 50)
    a, b = slopes("whole numbers", 5, 120, generator)
    for image in (1, 3):  # narrow and wide images in one batch
        a[image], b[image] = front(120)
    b[3] += 0.5
    free = torch.rand(5, 120, generator=generator) < 0.9
    assert_as_by_every_pair(a, b, free)


def test_few_features_are_left_to_search_pair_by_pair(generator):
    a, b = slopes("independent", 4, 50_000, generator)
    assert int(saliency._candidates(a, -b).sum(1).max()) < 100
    a, b = front(500)
    assert bool(saliency._candidates(a[None], -b[None]).all())


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_products_neither_underflow_nor_overflow(size, generator):
    a, b = slopes("independent", 20, 30, generator)
    free = torch.ones_like(a, dtype=torch.bool)
    assert torch.equal(best_pair(a * size, b * size, free)[0], best_pair(a, b, free)[0])
    assert torch.equal(best_feature(a * size, b * size, free)[0], best_feature(a, b, free)[0])
    assert bool(best_pair(a * size, b * size, free)[1].all())


def test_saliency_is_wider_than_float32():
    a = torch.tensor([[1.0, 1.0, 2.0**-23]])
    pairs, found = best_pair(1 + a, -torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert (pairs.tolist(), found.tolist()) == ([[0, 1]], [True])
    rise = torch.tensor([[2.0**24, 1.0, 2.0]])  # in float32 both sums are 2^24 + 2 or less: 2^24 + 1 is no number
    assert best_pair(rise, -torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))[0].tolist() == [[0, 2]]
    near = torch.tensor([[1.0, 2.0**-25, 2.0**-24]])  # both sums are 1 in float32, and the first pair would win
    assert best_pair(near, -torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))[0].tolist() == [[0, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_single_feature_is_the_first_of_the_best(kind, generator):
    a, b = slopes(kind, 50, 30, generator)
    free = torch.rand(50, 30, generator=generator) < 0.7
    places, found = best_feature(a, b, free)
    for i in range(50):
        scores = {p: -float(a[i, p] * b[i, p]) for p in range(30) if free[i, p] and a[i, p] > 0 > b[i, p]}
        assert bool(found[i]) == bool(scores)
        if scores:
            assert int(places[i]) == min(p for p, score in scores.items() if score == max(scores.values()))
