"""Figures 1 to 3 of Ross & Doshi-Velez 2018: FGSM and TGSM examples of every network, judged by every network.

The claims' rules were written before any of these accuracies and norms was read. Differences are paired over images.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar

from torch import Tensor

from pellucid.metrics import Interval, accuracy, bootstrap_mean, wilson
from pellucid.spec import register
from pellucid.studies.chapter import Chapter
from pellucid.studies.claims import ClaimRow, above, all_of, below, listed, paired_gap, plain, to_decide
from pellucid.studies.ross2018_networks import ADVERSARIAL, BOTH, DISTILLED, EPSILONS, LABEL_PENALTY, NORMAL
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns, read_predictions
from pellucid.tasks.training import TaskField

Grid = dict[str, dict[str, Tensor]]  # maker -> judge -> bool (eps, images)
FLOOR = 1e-20  # of gradient norms, as in the paper's Figure 4
NO_BETTER = 0.02  # of accuracy
LETTERS = {"MNIST": "a", "SVHN": "b", "notMNIST": "c"}


@register("task", "ross2018_transfers")
@dataclass(frozen=True, kw_only=True)
class Ross2018Transfers(Chapter):
    """Accuracy of every network on every network's examples at eps 0 to .7, on one of the three data sets.

    labels, fgsm, tgsm and norms stand side by side, one entry a network.
    """

    page: ClassVar[str] = "pellucid.studies.page.ross_transfers"
    covers: ClassVar[tuple[str, ...]] = ("I1", "I2", "I3", "L3", "L4", "L5")

    labels: tuple[str, ...]
    fgsm: tuple[TaskField, ...]
    tgsm: tuple[TaskField, ...]
    norms: tuple[TaskField, ...]

    def numbers(self, io: Io) -> dict[str, Any]:
        """Return accuracies with intervals and the notebooks' values, and the claims."""
        grids = {"FGSM": self._grid(io, self.fgsm), "TGSM": self._grid(io, self.tgsm)}
        norms = {
            label: read_columns(io.result(task).folder / "norms.parquet")
            for label, task in zip(self.labels, self.norms, strict=True)
        }
        known = printed(self.name)
        rows = [
            {"attack": attack, "made_for": maker, "judge": judge, "eps": eps, "images": len(right)}
            | _accuracy(right)._asdict()
            | {"printed": None if (given := known.get((attack, maker, judge))) is None else given[place]}
            for attack, grid in grids.items()
            for maker, judges in grid.items()
            for judge, every in judges.items()
            for place, (eps, right) in enumerate(zip(EPSILONS, every, strict=True))
        ]
        claims = [vanishing(self.name, norms[DISTILLED], norms[NORMAL]), no_better(self.name, grids["FGSM"])]
        claims += [highest(self.name, grids["FGSM"])] if BOTH in self.labels else []
        return {"rows": rows, "claims": claims}

    def _grid(self, io: Io, tasks: tuple[Any, ...]) -> Grid:
        found: Grid = {}
        for maker, task in zip(self.labels, tasks, strict=True):
            predicted, y, _ = read_predictions(io.result(task).folder / "predictions.parquet")
            judges = (maker, *(label for label in self.labels if label != maker))
            found[maker] = {judge: rows == y for judge, rows in zip(judges, predicted, strict=True)}
        return found


def printed(data: str) -> dict[tuple[str, str, str], list[float]]:
    """Return the notebooks' accuracies at eps 0 to .7 by (attack, maker, judge)."""
    found = json.loads(files("pellucid.studies").joinpath("ross2018_grids.json").read_text())["rows"]
    return {(row["attack"], row["made_for"], row["judge"]): row["accuracy"] for row in found if row["data"] == data}


def vanishing(data: str, distilled: dict[str, Tensor], normal: dict[str, Tensor]) -> ClaimRow:
    """Judge the gradients of the distilled network: FGSM's vanish (not on SVHN), TGSM's explode."""
    count = len(distilled["true"])
    share = wilson(int((distilled["true"] < FLOOR).sum()), count)
    logs = [norms["next"].clamp_min(FLOOR).log10() for norms in (distilled, normal)]
    ratio = bootstrap_mean(logs[0] - logs[1], resamples=2000)
    vanish = below(share, 0.5) if data == "SVHN" else above(share, 0.5)
    return {
        "name": f"L3{LETTERS[data]}",
        "statement": "FGSM gradients of the distilled network "
        + ("do not vanish" if data == "SVHN" else "vanish")
        + f" on {data}, those of TGSM explode.",
        "source": "Ross & Doshi-Velez 2018, Figures 1, 3 and 4",
        "rule": f"The share of images whose gradient's norm is below {FLOOR:g} is "
        + ("below" if data == "SVHN" else "above")
        + " one half, interval included; and the mean log10 ratio of its norms for the next label to the normal "
        "network's has an interval above 0.",
        "verdict": all_of([vanish, above(ratio)]),
        "evidence": f"Share below the floor {plain(share, False)}; log10 ratio {plain(ratio)}.",
        "power": to_decide({"the ratio": ratio}, count),
    }


def no_better(data: str, grid: Grid) -> ClaimRow:
    """Judge whether distillation is no better than no defence on examples made for other networks."""
    gaps = {f"made for {maker}": _lead(grid, maker, DISTILLED, NORMAL) for maker in (ADVERSARIAL, LABEL_PENALTY)}
    return {
        "name": f"L4{LETTERS[data]}",
        "statement": f"Distillation is no better than no defence on {data}.",
        "source": "Ross & Doshi-Velez 2018, Figure 1",
        "rule": "On FGSM examples made for the adversarially trained and the gradient-regularised (y) network, mean "
        f"over eps .1 to .7: accuracy of the distilled minus the normal network below {100 * NO_BETTER:g} points, both "
        "intervals. One above: does not hold.",
        "verdict": all_of(below(gap, NO_BETTER) for gap in gaps.values()),
        "evidence": f"Distilled ahead, {listed(gaps)}.",
        "power": to_decide(gaps, _images(grid), NO_BETTER),
    }


def highest(data: str, grid: Grid) -> ClaimRow:
    """Judge whether both defences together are the most accurate on transferred examples."""
    others = [label for label in grid if label != BOTH]
    gaps = {other: _lead(grid, NORMAL, BOTH, other, len(others)) for other in others}
    return {
        "name": "L5",
        "statement": f"Both defences together give the highest accuracy on {data}.",
        "source": "Ross & Doshi-Velez 2018, Figure 2",
        "rule": "On FGSM examples made for the normal network, mean over eps .1 to .7: accuracy with both minus that "
        "of every other network, all intervals (Bonferroni) above 0. One below 0: does not hold.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": f"Both ahead of {listed(gaps)}.",
        "power": to_decide(gaps, _images(grid)),
    }


def _lead(grid: Grid, maker: str, ours: str, other: str, count: int = 1) -> Interval:
    return paired_gap(grid[maker][ours][1:], grid[maker][other][1:], 1 - 0.05 / count)


def _images(grid: Grid) -> int:
    return grid[NORMAL][NORMAL].shape[1]


def _accuracy(right: Tensor) -> Interval:
    return accuracy(right.long(), right.new_ones(len(right)).long())
