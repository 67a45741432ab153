"""Cuts: disjoint, complete, stratified, and dependent on nothing but labels and seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.cuts import SEED, choose, in_order, next_change, shares, stratified
from pellucid.errors import DataError

PARTS = ("train", "validation", "test")


def parts_of(available, sizes, first=0, group=None):
    labels = {role: torch.arange(n) % 3 for role, n in sizes.items()}
    return {part: choose(part, available, labels.__getitem__, lambda _: group, first) for part in PARTS}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 20), st.integers(0, 20))
def test_stratified_parts_are_all_rows_once(labels, a, b):
    n = len(labels)
    a, b = min(a, n), min(b, n - min(a, n))
    rest, *parts = stratified(torch.tensor(labels), (a, b), 0)
    assert [len(part) for part in parts] == [a, b]
    assert torch.cat([rest, *parts]).sort().values.tolist() == list(range(n))


def test_stratified_rows_do_not_depend_on_the_other_classes():
    labels = torch.tensor([0, 1] * 20)
    _, part = stratified(labels, (10,), 5)
    _, other = stratified(torch.where(labels == 1, 7, 0), (10,), 5)
    zeros = labels == 0
    assert part[zeros[part]].tolist() == other[zeros[other]].tolist()
    assert len(part[zeros[part]]) == 5
    assert not torch.equal(part, stratified(labels, (10,), 6)[1])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 100))
def test_shares_add_up_and_fit(counts, size):
    size = min(size, sum(counts))
    given = shares(size, counts)
    assert sum(given) == size
    assert all(0 <= share <= count for share, count in zip(given, counts))


def test_validation_is_the_first_of_train_where_the_papers_say_so():
    parts = parts_of(("train", "test"), {"train": 20, "test": 6}, first=5)
    assert parts["validation"][:2][0] == "train"
    assert parts["validation"][1].tolist() == list(range(5))
    assert parts["train"][1].tolist() == list(range(5, 20))
    assert parts["test"][0] == "test"
    assert parts["test"][1].tolist() == list(range(6))
    assert "first 5" in parts["validation"][2]


def test_too_few_images_for_the_first_ones_are_refused():
    with pytest.raises(DataError, match="too few"):
        parts_of(("train", "test"), {"train": 5, "test": 6}, first=5)


def test_validation_is_a_tenth_drawn_per_class_otherwise():
    parts = parts_of(("train", "test"), {"train": 90, "test": 6})
    train, validation = parts["train"][1], parts["validation"][1]
    assert (validation % 3).bincount().tolist() == [3, 3, 3]
    assert torch.cat([train, validation]).sort().values.tolist() == list(range(90))
    assert str(SEED) in parts["train"][2]


def test_published_parts_are_taken_as_they_are():
    parts = parts_of(PARTS, {"train": 9, "validation": 3, "test": 6}, first=5)
    assert {part: (role, len(rows)) for part, (role, rows, _) in parts.items()} == {
        "train": ("train", 9),
        "validation": ("validation", 3),
        "test": ("test", 6),
    }


def test_a_held_out_validation_split_judges_where_there_is_no_test_split():
    parts = parts_of(("train", "validation"), {"train": 90, "validation": 7})
    assert parts["test"][0] == "validation"
    assert len(parts["test"][1]) == 7
    assert parts["validation"][0] == parts["train"][0] == "train"
    assert (len(parts["train"][1]), len(parts["validation"][1])) == (81, 9)


def test_a_train_split_alone_is_cut_in_three():
    parts = parts_of(("train",), {"train": 90})
    rows = [parts[part][1] for part in PARTS]
    assert [len(row) for row in rows] == [63, 9, 18]
    assert torch.cat(rows).sort().values.tolist() == list(range(90))
    assert all("only split" in parts[part][2] for part in PARTS)


def test_a_test_split_alone_is_cut_between_groups():
    group = torch.arange(100) // 3  # 70 and 80 lie inside groups that end at 72 and 81
    parts = parts_of(("test",), {"test": 100}, group=group)
    rows = [parts[part][1] for part in PARTS]
    assert [(int(row[0]), int(row[-1])) for row in rows] == [(0, 71), (72, 80), (81, 99)]
    assert "no train split" in parts["train"][2]
    assert "group" in parts["train"][2]


def test_without_groups_the_cut_is_where_it_is():
    assert [len(in_order(part, 100)[0]) for part in PARTS] == [70, 10, 20]
    assert next_change(4, 10, torch.zeros(10)) == 10
    assert next_change(4, 10, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 2])) == 4


def test_a_part_that_nothing_gives_is_refused():
    with pytest.raises(DataError, match="no train split"):
        parts_of(("validation", "test"), {"validation": 3, "test": 6})
