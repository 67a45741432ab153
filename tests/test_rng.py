import itertools
import math

import pytest
import torch
from scipy import stats

from pellucid.rng import Stream, derive, global_seed, mix, mix_number, permutation

WORD = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


def wide(n: int, *shape: int) -> torch.Tensor:
    return torch.empty(n, *shape, dtype=torch.float64)


def splitmix(z: int) -> int:
    """The finaliser of SplitMix64 in unbounded integers, as its authors print it."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def test_mix_gives_the_published_splitmix64_sequence():
    seeds = [(1234567 + i * GOLDEN) % WORD for i in range(1, 6)]
    words = mix(torch.tensor([s - WORD if s >= WORD // 2 else s for s in seeds]))
    assert [w % WORD for w in words.tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("word", [0, -1, 2**63, -(2**63), 2**64 - GOLDEN, WORD, 3 * 2**80 + 5])
def test_a_number_is_mixed_as_a_word_is(word):
    wrapped = (word + GOLDEN) % WORD
    (mixed,) = mix(torch.tensor([wrapped - WORD if wrapped >= WORD // 2 else wrapped])).tolist()
    assert mix_number(word) == mixed % (WORD // 2)


def test_words_are_the_hash_of_their_coordinates():
    def word(seed: int, position: int, step: int, element: int) -> int:
        key = splitmix((position * GOLDEN + splitmix((seed + GOLDEN) % WORD) % (WORD // 2)) % WORD)
        key = splitmix(key ^ splitmix((step + 1 + GOLDEN) % WORD) % (WORD // 2))
        return splitmix((key + element * GOLDEN) % WORD)

    positions = [0, 5, 2**40]
    words = Stream(11, torch.tensor(positions)).words(wide(3), (2, 2), step=9)
    expected = [[word(11, p, 9, e) for e in range(4)] for p in positions]
    assert [[w % WORD for w in row] for row in words.flatten(1).tolist()] == expected


def test_drawing_changes_neither_words_nor_positions():
    words, positions = torch.tensor([3, -7]), torch.tensor([5, 2])
    mix(words)
    stream, like = Stream(1, positions), wide(2, 3)
    first = stream.normal(like)
    stream.uniform(like), stream.integers(like, 4)
    assert words.tolist() == [3, -7]
    assert positions.tolist() == [5, 2]
    assert torch.equal(stream.normal(like), first)


def test_normal_is_box_and_muller_of_two_uniform_numbers():
    stream, like = Stream(7, torch.arange(40)), wide(40, 3, 17)
    radius, angle = (stream.child(name).uniform(like) for name in ("radius", "angle"))
    expected = (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)
    assert torch.equal(stream.normal(like), expected)
    assert torch.equal(stream.normal(like.float()), expected.float())


# Numbers fixed for ever: results on disk were made with them.
def test_golden_values():
    stream, like = Stream(7, torch.tensor([0, 1, 59999])), wide(3)
    assert stream.words(like, (2,)).tolist() == [
        [7132445256496826003, 3634898639471713807],
        [5042576411745091628, -61976041599819329],
        [-8817419812957425257, -3902687246473311479],
    ]
    assert stream.words(like, (2,), step=3).tolist() == [
        [2180218876241002059, 8653476864139514578],
        [365506801057533478, -6268877611723009479],
        [-2349056122851302266, -2622177557311824772],
    ]
    assert stream.uniform(like, (2,)).tolist() == [
        [0.3866506321113894, 0.19704825008399174],
        [0.2733586150269094, 0.9966402720527712],
        [0.5220067141537414, 0.7884349004421082],
    ]
    normal = [
        [-1.0393756047773086, 0.8094958894463637],
        [1.056579825486083, 1.6820650417603988],
        [0.5995652721397277, 1.0876164399422645],
    ]
    torch.testing.assert_close(stream.normal(like, (2,)), torch.tensor(normal, dtype=torch.float64))
    assert stream.integers(like, 10).tolist() == [1, 4, 9]
    assert permutation(10, 3).tolist() == [0, 1, 7, 2, 6, 8, 9, 3, 4, 5]
    assert (derive(0, "train"), derive(0, "train", 3)) == (9065947908840797569, 2367553704710569191)
    assert (derive(5, "a", "b"), derive(-1, -1)) == (3332152986254758343, 6195083162974586972)
    assert (mix_number(0), mix_number(1)) == (7070836379803831727, 1227844342346046657)


@pytest.mark.parametrize("draw", ["uniform", "normal", "integers"])
def test_a_sample_keeps_its_numbers_in_any_batch_order_and_company(draw):
    def numbers(stream: Stream, n: int) -> torch.Tensor:
        like = wide(n, 2, 3)
        return stream.integers(like, 1000, step=4) if draw == "integers" else getattr(stream, draw)(like, step=4)

    whole = numbers(Stream(3), 10)
    order = torch.tensor([7, 2, 9, 0])
    assert torch.equal(numbers(Stream(3, torch.arange(10)), 10), whole)
    assert torch.equal(numbers(Stream(3).take(order), 4), whole[order])
    assert torch.equal(numbers(Stream(3).take(order).take(torch.tensor([3, 1])), 2), whole[[0, 2]])
    assert torch.equal(numbers(Stream(3, order.to(torch.int32)), 4), whole[order])
    child = numbers(Stream(3).child("start"), 10)
    assert torch.equal(numbers(Stream(3).take(order).child("start"), 4), child[order])
    assert not torch.equal(child, whole)


def grid(rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every pair of a row and a step, rows first."""
    return torch.arange(rows).repeat_interleave(steps), torch.arange(steps).repeat(rows)


@pytest.mark.parametrize("draw", ["uniform", "normal", "integers"])
def test_a_pairs_numbers_depend_on_its_position_and_step_alone(draw):
    def numbers(stream: Stream, n: int) -> torch.Tensor:
        like = wide(n, 2, 3)
        return stream.integers(like, 10**9, step=4) if draw == "integers" else getattr(stream, draw)(like, step=4)

    whole = numbers(Stream(3).pairs(*grid(6, 5)), 30)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(1))[:11]
    rows, steps = (part[shuffled] for part in grid(6, 5))
    assert torch.equal(numbers(Stream(3).pairs(rows, steps), 11), whole[shuffled])  # any batch, any order
    assert torch.equal(numbers(Stream(3).pairs(rows[:1], steps[:1]), 1), whole[shuffled[:1]])  # alone
    taken = Stream(3).take(torch.tensor([4, 1]))
    assert torch.equal(numbers(taken.pairs(*grid(2, 5)), 10), whole.unflatten(0, (6, 5))[[4, 1]].flatten(0, 1))
    narrow = Stream(3, torch.tensor([4, 1], dtype=torch.int32))
    assert torch.equal(numbers(narrow.pairs(*grid(2, 5)), 10), numbers(taken.pairs(*grid(2, 5)), 10))
    child = numbers(Stream(3).pairs(*grid(6, 5)).child("noise"), 30)
    assert torch.equal(numbers(taken.pairs(*grid(2, 5)).child("noise"), 10)[:5], child[20:25])
    for other in (Stream(4), Stream(3).child("noise")):
        assert not bool((numbers(other.pairs(*grid(6, 5)), 30) == whole).any())


def test_pairs_do_not_collide_with_each_other_nor_with_single_samples():
    positions = torch.cat([torch.arange(1000), torch.tensor([59_999, 2**24, 2**24 + 1, 2**38, 2**39 - 1])])
    anywhere = torch.randint(2**24, (250,), generator=torch.Generator().manual_seed(1))
    steps = torch.cat([torch.arange(60), 2 ** torch.arange(6, 24), anywhere, torch.tensor([2**24 - 1])]).unique()
    rows = torch.arange(len(positions)).repeat_interleave(len(steps))
    stream = Stream(0, positions).pairs(rows, steps.repeat(len(positions)))
    words = stream.words(wide(len(rows)), ()).tolist()
    plain = Stream(0).words(wide(10_000), ()).tolist()
    assert len(set(words)) == len(words)
    assert not set(words) & set(plain)
    assert len({*Stream(0).pairs(*grid(20, 50)).pairs(*grid(1000, 7)).words(wide(7000), ()).tolist()}) == 7000


def test_pairs_of_neighbouring_rows_and_steps_are_uncorrelated():
    numbers = (Stream(5).pairs(*grid(300, 300)).uniform(wide(90_000, 1)) - 0.5).view(300, 300)
    pairs = {
        "rows": (numbers[1:], numbers[:-1]),
        "steps": (numbers[:, 1:], numbers[:, :-1]),
        "diagonal": (numbers[1:, 1:], numbers[:-1, :-1]),
        "antidiagonal": (numbers[1:, :-1], numbers[:-1, 1:]),
    }
    for where, (a, b) in pairs.items():
        assert abs(float((a * b).mean() * 12)) < 4.5 / math.sqrt(a.numel()), where
    assert stats.kstest(numbers.flatten().numpy() + 0.5, "uniform").pvalue > 1e-3


def test_no_pair():
    none = torch.zeros(0, dtype=torch.long)
    assert Stream(0).pairs(none, none).normal(wide(0, 3)).shape == (0, 3)


def test_the_first_elements_do_not_depend_on_how_many_there_are():
    assert torch.equal(Stream(1).uniform(wide(3, 50))[:, :7], Stream(1).uniform(wide(3, 7)))
    assert torch.equal(Stream(1).uniform(wide(3, 2, 4)).flatten(1), Stream(1).uniform(wide(3, 8)))


def test_uniform_is_uniform():
    numbers = Stream(2).uniform(wide(1000, 200)).flatten()
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3
    assert float(numbers.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * 200_000))
    assert float(numbers.var()) == pytest.approx(1 / 12, abs=0.001)


def test_normal_is_normal():
    numbers = Stream(3).normal(wide(1000, 200)).flatten()
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-3
    assert numbers.isfinite().all()
    assert float(numbers.abs().max()) > 4


@pytest.mark.parametrize("high", [2, 3, 10, 257])
def test_integers_are_uniform_on_their_range(high):
    numbers = Stream(4).integers(wide(100_000), high)
    counts = torch.bincount(numbers, minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_neighbours_are_uncorrelated():
    n = 200
    elements = Stream(5).uniform(wide(n, n)) - 0.5
    steps = torch.stack([Stream(5).uniform(wide(n), (1,), step=s)[:, 0] for s in range(n)], 1) - 0.5
    seeds = torch.stack([Stream(s).uniform(wide(n), (1,))[:, 0] for s in range(n)], 1) - 0.5
    pairs = {
        "elements": (elements[:, 1:], elements[:, :-1]),
        "positions": (elements[1:], elements[:-1]),
        "diagonal": (elements[1:, 1:], elements[:-1, :-1]),
        "antidiagonal": (elements[1:, :-1], elements[:-1, 1:]),
        "steps": (steps[:, 1:], steps[:, :-1]),
        "position and step": (steps[1:, :-1], steps[:-1, 1:]),
        "seeds": (seeds[:, 1:], seeds[:, :-1]),
    }
    for where, (a, b) in pairs.items():
        correlation = float((a * b).mean() * 12)
        assert abs(correlation) < 4.5 / math.sqrt(a.numel()), where


def test_radius_and_angle_of_normal_numbers_are_independent_of_the_uniform_ones():
    like = wide(500, 100)
    uniform, normal = Stream(6).uniform(like).flatten() - 0.5, Stream(6).normal(like).flatten()
    assert abs(float((uniform * normal).mean()) * math.sqrt(12)) < 4.5 / math.sqrt(50_000)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_single_precision_is_double_precision_rounded(draw):
    double, single = (getattr(Stream(8), draw)(torch.empty(50, 40, dtype=d)) for d in (torch.float64, torch.float32))
    assert single.dtype == torch.float32
    assert float((double - single).abs().max()) <= (2**-24 if draw == "uniform" else 2**-21)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_never_reaches_one(dtype):
    numbers = Stream(9).uniform(torch.empty(1000, 100, dtype=dtype))
    assert numbers.dtype == dtype
    assert float(numbers.max()) < 1
    assert float(numbers.double().mean()) == pytest.approx(0.5, abs=0.01)


def test_a_stream_of_other_length_than_the_batch_is_refused():
    with pytest.raises(ValueError, match="3 samples"):
        Stream(0, torch.arange(3)).uniform(wide(4, 2))


def test_no_sample_and_no_element():
    assert Stream(0).uniform(wide(0, 3)).shape == (0, 3)
    assert Stream(0).normal(wide(3, 0)).shape == (3, 0)
    assert Stream(0).integers(wide(0), 5).shape == (0,)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_holds_everything_once(n):
    order = permutation(n, seed=5)
    assert torch.equal(order.sort().values, torch.arange(n))
    assert torch.equal(order, permutation(n, seed=5))


def test_permutations_of_four_are_equally_likely():
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for seed in range(2400):
        counts[tuple(permutation(4, seed).tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_derived_seeds_do_not_collide_and_depend_on_order():
    seeds = [derive(s, name, i) for s in range(10) for name in ("train", "fit", "step", "") for i in range(250)]
    seeds += [derive(s, "train") for s in range(10)] + [
        derive(0, "a", "b"),
        derive(0, "b", "a"),
        derive(0, "ab"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    long = "the name of a very long parameter.weight" * 3
    assert derive(0, long) != derive(0, long + "s") != derive(0, "x" + long)


def test_global_seed_seeds_inside_and_restores_outside_also_after_an_exception():
    before = torch.get_rng_state()
    with global_seed(5):
        first = torch.rand(4)
    with global_seed(5):
        assert torch.equal(torch.rand(4), first)
    with global_seed(6):
        assert not torch.equal(torch.rand(4), first)
    with pytest.raises(RuntimeError, match="negative dimension"), global_seed(7):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    Stream(1).normal(wide(3, 3))
    Stream(1).integers(wide(3), 4)
    permutation(5, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_pairs_of_samples_and_steps_have_numbers_of_their_own():
    like = torch.empty(6, 0, dtype=torch.float64)
    rows, steps = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    found = Stream(3).pairs(rows, steps).uniform(like, (50,))
    assert len(found.flatten().unique()) == 300, "no two pairs share a number"
    chosen = torch.tensor([5, 2])
    again = Stream(3).pairs(rows[chosen], steps[chosen]).uniform(like[:2], (50,))
    assert torch.equal(again, found[chosen]), "a pair's numbers depend on nothing else"
    moved = (
        Stream(3, torch.tensor([7, 0, 2])).pairs(torch.tensor([1, 2]), torch.tensor([1, 0])).uniform(like[:2], (50,))
    )
    assert torch.equal(moved, found[torch.tensor([1, 4])]), "positions count, not rows"
    assert not torch.equal(Stream(4).pairs(rows, steps).uniform(like, (50,)), found)


def test_pairs_of_pairs_do_not_wrap_into_each_other():
    positions = torch.tensor([0, 1, 1 << 16, 1 << 24, (1 << 38) + 1])
    rows = torch.arange(5)
    outer = Stream(3, positions).pairs(rows, torch.full((5,), 2))
    inner = outer.pairs(rows, torch.full((5,), 3))
    found = inner.uniform(torch.empty(5, 0, dtype=torch.float64), (20,))
    assert len(found.flatten().unique()) == 100
