"""Letters of many fonts, from the large and the small set where both are there."""

import functools
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pellucid.data.assemble import collect, table_of, usable
from pellucid.data.cuts import SEED, balanced
from pellucid.data.location import Location
from pellucid.data.published import Sifted, local
from pellucid.data.source import Role, Source, Unreadable
from pellucid.data.split import Split, check_part
from pellucid.errors import DataError
from pellucid.spec import NOT_HASHED, register

LARGE, SMALL = ("notMNIST_large", "large"), ("notMNIST_small", "small")
SIZES = {"train": 200_000, "validation": 10_000, "test": 10_000}


@register("data", "notmnist")
@dataclass(frozen=True, kw_only=True)
class NotMNIST(Sifted):
    """Letters A to J of many fonts, 28x28 grey; in the papers' units they span [-0.5, 0.5].

    Where the data root holds both sets, as notMNIST_large and notMNIST_small with class folders or as large-*.parquet
    and small-*.parquet, train (200,000) and validation (10,000) are drawn from the large one and test (10,000) from
    the small one, all classes alike and in random order; `train`, `validation` and `test` are then the sizes to
    draw. One set alone, such as the hub's file, is cut in three. Images that cannot be read are skipped and
    named (unreadable=refuse: refused).

    Source: Bulatov 2011, drawn as by Ross & Doshi-Velez 2018 (authors' code).
    Deviations: the draw is seeded; the hub has one set only.
    """

    source: ClassVar[Source] = Source(
        "notmnist",
        "anubhavmaity/notMNIST",
        train=("train", *LARGE, *SMALL),
        tree=True,
        channels=1,
        classes=tuple("ABCDEFGHIJ"),
        value_range=(-0.5, 0.5),
    )

    unreadable: Unreadable = field(default="skip", metadata=NOT_HASHED)  # refused, or the same images

    def load(self, part: str) -> Split:
        """Return a part of the set; raise DataError if it is missing, unreadable or too small."""
        check_part(part)
        both = replace(self.described(), train=LARGE, test=SMALL)
        location = local(both)
        if location is None or set(location.roles) != {"train", "test"}:
            return super().load(part)
        return _drawn(both, location, part, tuple(getattr(self, name) or size for name, size in SIZES.items()))


@functools.lru_cache(maxsize=6)
def _drawn(source: Source, location: Location, part: str, sizes: tuple[int, ...]) -> Split:
    wanted = dict(zip(SIZES, sizes))
    role: Role = "test" if part == "test" else "train"
    asked = ("test",) if part == "test" else ("validation", "train")  # validation first: the same for every train
    of = "small" if part == "test" else "large"
    rows = usable(source, location, role)[0]
    table = table_of(source, location, role)
    labels = table.labels[rows]
    missing = [name for number, name in enumerate(source.classes) if not bool((labels == number).any())]
    if missing or table.classes not in ((), source.classes):
        raise DataError(f"the {of} set of notmnist needs images of the classes A to J; see {location.source}")
    drawn = balanced(labels, {name: wanted[name] for name in asked}, SEED, f"the {of} set of notmnist")[part]
    words = f"{len(drawn):,} of the {len(labels):,} images of the {of} set, as many of each class, with seed {SEED}"
    return collect(source, location, part, role, rows[drawn], words, None)
