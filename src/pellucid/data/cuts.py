"""Cuts: which rows of which published split make up train, validation and test."""

from collections.abc import Callable, Collection

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
) -> tuple[Role, Tensor, str]:
    """Return the published split that a part is taken from, its rows (N,) and the cut in words.

    `labels(role)` and `group(role)` give the label and the group of every image of a published split; they
    are asked only for the split that the part is taken from. `first` > 0 sets the first images of train aside
    for validation. Raises DataError if there is no split to take the part from.
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
        return role, *_in_three(part, role, labels(role))
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


def _in_three(part: str, role: Role, labels: Tensor) -> tuple[Tensor, str]:
    n = len(labels)
    train, test, validation = stratified(labels, (n // 5, n // 10), SEED)
    rows = {"train": train, "validation": validation, "test": test}[part]
    return (
        rows,
        f"{len(rows):,} of the {n:,} images, the only split there is, drawn per class with seed {SEED}",
    )


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
    order = {c: torch.nonzero(labels == c)[:, 0] for c in sorted(set(labels.tolist()))}
    order = {c: rows[permutation(len(rows), derive(seed, "class", c))] for c, rows in order.items()}
    parts = []
    for size in sizes:
        counts = shares(size, [len(rows) for rows in order.values()])
        taken = [rows[:count] for rows, count in zip(order.values(), counts)]
        order = {c: rows[count:] for (c, rows), count in zip(order.items(), counts)}
        parts.append(_joined(taken))
    return [_joined(list(order.values())), *parts]


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
