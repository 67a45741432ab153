"""The claims of Zhang & Zhu 2019 that transformed images and maps can decide, with their rules.

The rules were written before any network was finished. Networks are compared within one architecture, on the same
images; the intervals of a claim hold together at 95 % (Bonferroni: each of m at 1 - .05/m). A claim holds where it
holds for every architecture.

"Accuracy on correct" at a level is R = sum r c / sum c, c whether the network is right on the untouched image, r on the
transformed one. Every network has its own c, so a difference of two R is taken on R + c (r - R) / mean(c), whose mean
is R and whose spread over images is that of R (the delta method).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from pellucid.metrics import Interval
from pellucid.studies.claims import ClaimRow, Verdict, above, all_of, below, listed, paired_gap, plain

NORMAL, UNDERFIT, ADVERSARIAL = "Normal", "Underfit", "PGD-linf: 8"
UNTOUCHED = "untouched"
HIGH, LOW = tuple(f"saturation {p}" for p in (8, 16, 64, 1024)), tuple(f"saturation {p:g}" for p in (0.25, 0.5))
SAME, SAME_LOSS = 0.05, 0.1  # Table 7 at k = 8: up to 4.8 points apart; Table 6 at p = .25 and .5: up to 9
SOURCE = "Zhang & Zhu 2019"


@dataclass(frozen=True)
class Measured:
    """What was measured of one network, image by image; levels are names, that of the clean images is "untouched"."""

    right: Mapping[str, Tensor]  # bool (N,)
    robust: Tensor  # bool (M,), right under PGD
    sparsity: Mapping[str, Tensor]  # (S,), of the map of the true class
    contours: Mapping[str, Tensor]  # (S,), rank correlation of the map and the image's edges


Numbers = Mapping[str, Mapping[str, Measured]]  # architecture -> method -> what was measured


def linearised(ours: Measured, level: str) -> Tensor:
    """Return one value per image, whose mean is accuracy on correct and whose spread is that of it: (N,)."""
    clean, right = ours.right[UNTOUCHED].double(), ours.right[level].double()
    value = (clean * right).sum() / clean.sum()
    return value + clean * (right - value) / clean.mean()


def judge(numbers: Numbers) -> list[ClaimRow]:
    """Return the verdicts on claims L15 to L18 of the checklist; none where networks are missing."""
    if not numbers or any(not {NORMAL, UNDERFIT, ADVERSARIAL} <= set(found) for found in numbers.values()):
        return []
    return [
        _maps(numbers, "a", "sparsity", "sparser", "Gini index"),
        _maps(numbers, "b", "contours", "more on the contours", "rank correlation with the Sobel edges"),
        _ahead(
            numbers, "L16a", "better on highly saturated images", "Figure 5, Table 6", _levels(numbers, HIGH), above
        ),
        _ahead(numbers, "L16b", "worse on patch-shuffled images", "Figure 7", _shuffled(numbers)[:-1], below),
        _alike(
            numbers,
            "L16c",
            "are equally bad where patches are smallest",
            "Figure 7",
            _shuffled(numbers)[-1:],
            SAME,
        ),
        _alike(
            numbers,
            "L16d",
            "lose equally at low saturation",
            "Figure 5",
            _levels(numbers, LOW),
            SAME_LOSS,
        ),
        _order(numbers, "a"),
        _order(numbers, "b"),
        _ahead(numbers, "L18a", "better on low-pass filtered images", "Table 3", _starting(numbers, "low-pass"), above),
        _ahead(
            numbers, "L18b", "worse on high-pass filtered images", "Table 3", _starting(numbers, "high-pass"), below
        ),
    ]


def _levels(numbers: Numbers, wanted: Iterable[str]) -> tuple[str, ...]:
    first = next(iter(next(iter(numbers.values())).values()))
    return tuple(level for level in wanted if level in first.right)


def _starting(numbers: Numbers, word: str) -> tuple[str, ...]:
    first = next(iter(next(iter(numbers.values())).values()))
    return tuple(level for level in first.right if level.startswith(word))


def _shuffled(numbers: Numbers) -> tuple[str, ...]:
    return _starting(numbers, "shuffle")


def _gaps(numbers: Numbers, others: tuple[str, ...], levels: tuple[str, ...]) -> dict[str, Interval]:
    """Return accuracy on correct of adversarial training minus that of others, by architecture, other and level."""
    confidence = 1 - 0.05 / max(1, len(numbers) * len(others) * len(levels))
    return {
        f"{architecture}, {level}, {other}": paired_gap(
            linearised(found[ADVERSARIAL], level), linearised(found[other], level), confidence
        )
        for architecture, found in numbers.items()
        for other in others
        for level in levels
    }


def _maps(numbers: Numbers, letter: str, measure: str, said: str, what: str) -> ClaimRow:
    first = next(iter(next(iter(numbers.values())).values()))
    levels = tuple(getattr(first, measure))
    confidence = 1 - 0.05 / (len(numbers) * len(levels))
    gaps = {
        f"{architecture}, {level}": _gap(
            getattr(found[ADVERSARIAL], measure)[level], getattr(found[NORMAL], measure)[level], confidence
        )
        for architecture, found in numbers.items()
        for level in levels
    }
    return {
        "name": f"L15{letter}",
        "statement": f"The maps of adversarially trained networks are {said}, and still so on transformed images.",
        "source": f"{SOURCE}, Figure 2",
        "rule": f"Mean {what} of the SmoothGrad map of the true class, of {ADVERSARIAL} minus {NORMAL}, on "
        f"{_and(levels)} images of every architecture: all intervals above 0. One below 0: does not hold.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": f"{listed(gaps, plain)}.",
    }


def _gap(a: Tensor, b: Tensor, confidence: float) -> Interval:
    """Compare two networks on the images for which both have a number: a constant map has none."""
    known = a.isfinite() & b.isfinite()
    return paired_gap(a[known], b[known], confidence)


def _ahead(
    numbers: Numbers,
    name: str,
    said: str,
    place: str,
    levels: tuple[str, ...],
    side: Callable[[Interval], Verdict],
) -> ClaimRow:
    gaps = _gaps(numbers, (NORMAL,), levels)
    where = "above" if side is above else "below"
    return {
        "name": name,
        "statement": f"Adversarially trained networks are {said}.",
        "source": f"{SOURCE}, {place}",
        "rule": f"Accuracy on correct of {ADVERSARIAL} minus that of {NORMAL}, at {_and(levels)}, of every "
        f"architecture: all intervals {where} 0. One on the other side: does not hold.",
        "verdict": all_of(side(gap) for gap in gaps.values()) if gaps else "cannot be decided",
        "evidence": f"{listed(gaps)}." if gaps else "Not measured at this scale.",
    }


def _alike(numbers: Numbers, name: str, said: str, place: str, levels: tuple[str, ...], limit: float) -> ClaimRow:
    gaps = _gaps(numbers, (NORMAL, UNDERFIT), levels)
    return {
        "name": name,
        "statement": f"Adversarially trained and other networks {said}.",
        "source": f"{SOURCE}, {place}",
        "rule": f"Accuracy on correct of {ADVERSARIAL} minus that of {NORMAL} and of {UNDERFIT}, at {_and(levels)}, of "
        f"every architecture: all intervals within {100 * limit:g} points of 0. One beyond: does not hold.",
        "verdict": all_of(_within(gap, limit) for gap in gaps.values()) if gaps else "cannot be decided",
        "evidence": f"{listed(gaps)}." if gaps else "Not measured at this scale.",
    }


def _within(gap: Interval, limit: float) -> Verdict:
    return all_of((above(gap, -limit), below(gap, limit)))


def _order(numbers: Numbers, letter: str) -> ClaimRow:
    """Judge whether the more robust of two networks is ahead at high saturation (a) or behind on clean images (b)."""
    pairs = [
        (architecture, robust, other, paired_gap(found[robust].robust, found[other].robust))
        for architecture, found in numbers.items()
        for robust, other in permutations([name for name in found if name != UNDERFIT], 2)
    ]
    ordered = [(architecture, robust, other) for architecture, robust, other, gap in pairs if gap.low > 0]
    confidence = 1 - 0.05 / max(1, len(ordered))
    gaps = {}
    for architecture, robust, other in ordered:
        values = _saturated if letter == "a" else _clean
        ours, theirs = (values(numbers[architecture][name]) for name in (robust, other))
        gaps[f"{architecture}, {robust} against {other}"] = paired_gap(ours, theirs, confidence)
    what = "mean accuracy on correct at saturation 8 to 1024" if letter == "a" else "clean accuracy"
    where = "above" if letter == "a" else "below"
    verdicts = (above(gap) if letter == "a" else below(gap) for gap in gaps.values())
    return {
        "name": f"L17{letter}",
        "statement": "The more robust a network is, the less sensitive to saturation."
        if letter == "a"
        else "The more robust a network is, the less accurate on clean images.",
        "source": f"{SOURCE}, section 4.2.2, of adversarially trained networks; here of all that were trained",
        "rule": f"For every two networks of an architecture, {UNDERFIT} left out, of which one is more robust under "
        f"PGD (paired 95 % interval): {what} of the more robust one minus that of the other, all intervals {where} 0. "
        "One on the other side: does not hold.",
        "verdict": all_of(verdicts) if gaps else "cannot be decided",
        "evidence": f"{listed(gaps)}." if gaps else "No two networks differ in robustness.",
    }


def _saturated(ours: Measured) -> Tensor:
    return torch.stack([linearised(ours, level) for level in HIGH if level in ours.right]).mean(0)


def _clean(ours: Measured) -> Tensor:
    return ours.right[UNTOUCHED].double()


def _and(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
