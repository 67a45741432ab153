"""Cuts: which rows of which published split make up train, validation and test."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from pellucid.data.source import Role
from pellucid.errors import DataError
from pellucid.rng import derive, permutation

SEED = 20_260_101  # of every seeded cut, once and for all: changing it changes the published parts


def choose(
    part: str,
    available: Collection[Role],
    labels: Callable[[Role], Tensor],
    group: Callable[[Role], Tensor | None],
    first: int = 0,
    fifth: int | None = None,
) -> tuple[Role, Tensor, str]:
    """Return the published split that a part is taken from, its rows (N,) and the cut in words.

    `labels(role)` and `group(role)` give the label and the group of every image of a published split; they
    are asked only for the split that the part is taken from. `first` > 0 sets the first images of train aside
    for validation. `fifth` is a seed, with which a single split gives a fifth of each class, rounded down, to test.
    Raises DataError if there is no split to take the part from.
    """
    roles = set(available)
    if roles == {"train", "validation"}:  # the only held-out split judges, so train gives the validation part
        role: Role = "validation" if part == "test" else "train"
        return role, *_cut_or_whole(part, role, labels(role), cut=role == "train", first=first)
    if "train" in roles and "test" in roles:
        own = "validation" in roles
        role = "test" if part == "test" else "validation" if part == "validation" and own else "train"
        return role, *_cut_or_whole(part, role, labels(role), cut=role == "train" and not own, first=first)
    if roles == {"test"}:
        return "test", *in_order(part, len(labels("test")), group("test"))
    if len(roles) == 1:
        role = next(iter(roles))
        return role, *(_in_three(part, labels(role)) if fifth is None else _fifth(part, labels(role), fifth))
    if part in roles:
        return part, *_cut_or_whole(part, part, labels(part), cut=False, first=0)
    raise DataError(f"there is no {part} split, nor a train split to cut it from")


def _cut_or_whole(part: str, role: Role, labels: Tensor, cut: bool, first: int) -> tuple[Tensor, str]:
    n = len(labels)
    if not cut:
        return torch.arange(n), f"the published {role} split"
    if first >= n:
        raise DataError(f"the train split has {n} images, too few to set its first {first} aside")
    if first and part == "validation":
        return torch.arange(first), f"the first {first:,} of the published train split"
    if first:
        return torch.arange(first, n), f"all but the first {first:,} of the published train split"
    rest, held = stratified(labels, (n // 10,), SEED)
    rows = held if part == "validation" else rest
    return rows, f"{len(rows):,} of the {n:,} of the published train split, drawn per class with seed {SEED}"


def _in_three(part: str, labels: Tensor) -> tuple[Tensor, str]:
    n = len(labels)
    train, test, validation = stratified(labels, (n // 5, n // 10), SEED)
    rows = {"train": train, "validation": validation, "test": test}[part]
    return (
        rows,
        f"{len(rows):,} of the {n:,} images, the only split there is, drawn per class with seed {SEED}",
    )


def _fifth(part: str, labels: Tensor, seed: int) -> tuple[Tensor, str]:
    parts: dict[str, list[Tensor]] = {"test": [], "validation": [], "train": []}
    for rows in by_class(labels, seed).values():
        test, validation = len(rows) // 5, len(rows) // 10
        for name, drawn in zip(parts, rows.tensor_split([test, test + validation])):
            parts[name].append(drawn)
    share = {"test": "a fifth", "validation": "a tenth", "train": "what a fifth and a tenth leave"}[part]
    rows = _joined(parts[part])
    words = f"{len(rows):,} of the {len(labels):,} images, the only split there is: {share} of each class"
    return rows, f"{words}, rounded down, drawn with seed {seed}"


def balanced(labels: Tensor, sizes: Mapping[str, int], seed: int, where: str) -> dict[str, Tensor]:
    """Draw parts with as many images of each class, one after the other from the same order of each class.

    Rows (size,) of each part, in a random order. Raises DataError if a class has too few images.
    """
    classes = by_class(labels, seed)
    taken, parts = dict.fromkeys(classes, 0), {}
    for name, size in sizes.items():
        drawn = []
        for (c, rows), count in zip(classes.items(), shares(size, [1] * len(classes))):
            drawn.append(rows[taken[c] : taken[c] + count])
            taken[c] += count
            if taken[c] > len(rows):
                raise DataError(f"class {c} of {where} has {len(rows):,} images, too few for {size:,} of all classes")
        together = torch.cat(drawn)
        parts[name] = together[permutation(len(together), derive(seed, name))]
    return parts


def in_order(part: str, n: int, group: Tensor | None = None) -> tuple[Tensor, str]:
    """Cut n images in order at 70% and 80%, each moved to the next change of group; return rows and words.

    >>> in_order("test", 10, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3, 4]))[0]
    tensor([9])
    """
    low, high = (next_change(share * n // 10, n, group) for share in (7, 8))
    start, stop = {"train": (0, low), "validation": (low, high), "test": (high, n)}[part]
    moved = "" if group is None else ", moved so that no group is divided"
    cut = f"of the published test split of {n:,} cut in order at 70% and 80%{moved}"
    return torch.arange(start, stop), f"images {start:,} to {stop - 1:,} {cut}, as there is no train split"


def next_change(place: int, n: int, group: Tensor | None) -> int:
    """Return the first position from `place` on whose group differs from the one before, else n."""
    if group is None or place == 0:
        return place
    changes = torch.nonzero(group[place:] != group[place - 1 : -1])
    return place + int(changes[0]) if len(changes) else n


def stratified(labels: Tensor, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Cut the rows of `labels` (N,) into the rest and parts of the given sizes, each class in its share.

    Returns the rest, then the parts, as ascending rows. Depends on the labels and the seed alone.
    """
    order = by_class(labels, seed)
    parts = []
    for size in sizes:
        counts = shares(size, [len(rows) for rows in order.values()])
        taken = [rows[:count] for rows, count in zip(order.values(), counts)]
        order = {c: rows[count:] for (c, rows), count in zip(order.items(), counts)}
        parts.append(_joined(taken))
    return [_joined(list(order.values())), *parts]


def by_class(labels: Tensor, seed: int) -> dict[int, Tensor]:
    """Return the rows of each class that occurs, in an order that depends on the seed, the class and its size."""
    order = {c: torch.nonzero(labels == c)[:, 0] for c in sorted(set(labels.tolist()))}
    return {c: rows[permutation(len(rows), derive(seed, "class", c))] for c, rows in order.items()}


def _joined(rows: list[Tensor]) -> Tensor:
    return torch.cat([*rows, torch.empty(0, dtype=torch.int64)]).sort().values


def shares(size: int, counts: list[int]) -> list[int]:
    """Share `size` among classes of the given counts by largest remainder, ties to the earlier class.

    >>> shares(4, [10, 10, 5])
    [2, 1, 1]
    """
    total = sum(counts)
    whole = [size * count // max(total, 1) for count in counts]
    remainders = [size * count % max(total, 1) for count in counts]
    ahead = sorted(range(len(counts)), key=lambda i: (-remainders[i], i))[: size - sum(whole)]
    return [number + (i in ahead) for i, number in enumerate(whole)]
