"""Scikit-learn's handwritten digits: small, always there, read in an instant."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.data.cuts import SEED, stratified
from pellucid.data.split import PARTS, Split, check_part
from pellucid.data.whole import limited, sha256_of
from pellucid.spec import Count, register

SIDE, SMALL = 28, 8
SIZES = {"train": 1197, "validation": 200, "test": 400}


@register("data", "digits")
@dataclass(frozen=True, kw_only=True)
class Digits:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8 in 0..16, resized bilinearly to 28x28.

    Pixels (N, 1, 28, 28), ten classes, cut per class into 1,197 / 200 / 400 once and for all. `train`,
    `validation` and `test` keep the first n images of a part. `load` raises DataError for an unknown part or
    one smaller than n. Source: Alpaydin & Kaynak 1998, test part of the UCI optical digits.
    """

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None

    def load(self, part: str) -> Split:
        """Return a part of the digits."""
        check_part(part)
        return _load(part, getattr(self, part))


@functools.lru_cache(maxsize=16)
def _load(part: str, limit: int | None) -> Split:
    pixels, labels = _all()
    rest, test, validation = stratified(labels, (SIZES["test"], SIZES["validation"]), SEED)
    rows = dict(zip(PARTS, (rest, validation, test)))[part]
    words = f"{SIZES[part]:,} of the 1,797 digits, drawn per class with seed {SEED}"
    rows, words = limited(rows, labels, limit, words, f"the {part} part of digits")
    return Split(
        name="digits",
        part=part,
        pixels=pixels[rows],
        labels=labels[rows],
        classes=tuple("0123456789"),
        sha256=sha256_of(pixels[rows], labels[rows]),
        cut=words,
        source="scikit-learn load_digits",
    )


@functools.lru_cache(maxsize=1)
def _all() -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(_stored())
    return enlarge(rows[:, :-1].view(-1, SMALL, SMALL))[:, None], rows[:, -1].clone()


def _stored() -> NDArray[np.int64]:
    """Return the digits as scikit-learn stores them, (1797, 65): 64 pixels and the label.

    Reads its file, as importing scikit-learn takes ten times as long as all the rest; asks it if that moved.
    """
    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package else ():
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            return np.loadtxt(file, delimiter=",", dtype=np.int64)
    return _asked()


def _asked() -> NDArray[np.int64]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.int64)


def enlarge(grid: Tensor) -> Tensor:
    """Resize digits (N, 8, 8) in 0..16 bilinearly to uint8 (N, 28, 28) in 0..255.

    In whole numbers, since the weights are fourteenths: the same pixels and SHA-256 on every machine.
    """
    weights = torch.zeros(SIDE, SMALL, dtype=torch.int64)
    for i in range(SIDE):
        place = min(max(4 * i - 5, 0), 14 * (SMALL - 1))  # 14 times (i + 1/2) 8/28 - 1/2
        low, part = divmod(place, 14)
        weights[i, low] += 14 - part
        weights[i, min(low + 1, SMALL - 1)] += part
    total = torch.einsum("ih,nhw,jw->nij", weights, grid, weights) * 255
    scale = 14 * 14 * 16
    return ((2 * total + scale) // (2 * scale)).to(torch.uint8)
