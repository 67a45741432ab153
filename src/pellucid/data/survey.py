"""Which images of a published split can be used, and which are left out."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.data.image import fault, name_of_row, open_image, too_small
from pellucid.data.source import Source
from pellucid.data.table import Table
from pellucid.errors import DataError

log = logging.getLogger("pellucid.data")
NAMED = 3  # images left out that a sentence names


def survey(table: Table, source: Source, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return the rows (N,) of the images that can be used, and the names of the others, each with the reason.

    Where unreadable images are skipped, every image is read to its end once; else only headers are read, and those only
    for a least size: an image that cannot be read raises DataError, here or once it is needed. What is left out is
    logged as a warning.
    """
    rows = torch.arange(len(table.labels))
    if source.unreadable == "refuse" and not source.least:
        return rows, ()
    faults = [_fault(table, row, source) for row in range(len(rows))]
    skipped = tuple(f"{name_of_row(table.where, row)} ({why})" for row, why in enumerate(faults) if why is not None)
    if skipped:
        log.warning("%s: %s", where, words(skipped))
    return rows[torch.tensor([why is None for why in faults], dtype=torch.bool)], skipped


def _fault(table: Table, row: int, source: Source) -> str | None:
    try:
        data = table.images[row].as_py()
        image = open_image(data, name_of_row(table.where, row))
    except DataError:
        if source.unreadable == "refuse":
            raise
        return "not readable"
    return too_small(image, source.least) or (fault(data) if source.unreadable == "skip" else None)


def words(skipped: Sequence[str]) -> str:
    """Return how many images were left out, and which, in a sentence.

    >>> words(("a.png (not readable)", "b.png (8x8, smaller than 224)"))
    '2 images left out: a.png (not readable), b.png (8x8, smaller than 224)'
    """
    more = f" and {len(skipped) - NAMED:,} more" if len(skipped) > NAMED else ""
    images = "image" if len(skipped) == 1 else "images"
    return f"{len(skipped):,} {images} left out: {', '.join(skipped[:NAMED])}{more}"
