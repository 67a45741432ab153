"""Figures 1 and 2 of Jakubovitz & Giryes 2018: accuracy against eps of FGSM, and against the change of a 1-pixel JSMA.

The claims' rules were written before any of these accuracies was read. Differences are paired over images, the mean
over all sizes above 0; the intervals of a claim hold together at 95 % (Bonferroni).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.metrics import Interval, accuracy
from pellucid.spec import Reals, register
from pellucid.studies.chapter import Chapter
from pellucid.studies.claims import ClaimRow, above, all_of, listed, paired_gap, to_decide
from pellucid.studies.jakubovitz2018_claims import ADVERSARIAL, NONE, after
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_predictions
from pellucid.tasks.training import TaskField

Right = Mapping[str, Tensor]  # network -> bool (sizes, images), whether it is right
JACOBIAN, GRADIENT, LIPSCHITZ = (after(penalty) for penalty in ("Jacobian", "input gradient", "cross-Lipschitz"))
OTHERS = (NONE, ADVERSARIAL, GRADIENT, LIPSCHITZ)
SOURCE = "Jakubovitz & Giryes 2018, Figures 1 and 2"


@register("task", "jakubovitz2018_curves")
@dataclass(frozen=True, kw_only=True)
class Jakubovitz2018Curves(Chapter):
    """Accuracy of every network under FGSM, 1-pixel JSMA and AutoAttack, on one of the two data sets.

    fgsm has one measurement for each of fgsm_labels, at all eps; jsma for each of jsma_labels one for each of thetas;
    autoattacked one for each of autoattack_labels. `claims` names the claims on FGSM and on JSMA; `ahead` says whether
    the paper has Jacobian regularisation ahead of all others on JSMA (CIFAR-10), or behind the input gradient (MNIST).
    """

    page: ClassVar[str] = "pellucid.studies.page.jakubovitz_curves"
    covers: ClassVar[tuple[str, ...]] = ("I26", "I27", "L22")

    fgsm_labels: tuple[str, ...]
    fgsm: tuple[TaskField, ...]
    jsma_labels: tuple[str, ...]
    thetas: Reals
    jsma: tuple[TaskField, ...]
    autoattack_labels: tuple[str, ...]
    autoattacked: tuple[TaskField, ...]
    claims: tuple[str, str]
    ahead: bool

    def numbers(self, io: Io) -> dict[str, Any]:
        """Return accuracy with its interval for every network, attack and size, and the claims."""
        fgsm, epsilons = {}, self.fgsm[0].epsilons
        for label, task in zip(self.fgsm_labels, self.fgsm, strict=True):
            fgsm[label] = _right(io, task)
        jsma: dict[str, Tensor] = {}
        for place, label in enumerate(self.jsma_labels):
            parts = self.jsma[place * len(self.thetas) : (place + 1) * len(self.thetas)]
            jsma[label] = torch.cat([_right(io, task) for task in parts])
        auto = {label: _right(io, task) for label, task in zip(self.autoattack_labels, self.autoattacked, strict=True)}
        sizes = {"FGSM": epsilons, "JSMA": self.thetas, "AutoAttack": self.autoattacked[0].epsilons}
        rows = [
            {"network": label, "attack": attack, "size": size, "images": len(right), **_accuracy(right)._asdict()}
            for attack, found in (("FGSM", fgsm), ("JSMA", jsma), ("AutoAttack", auto))
            for label, grid in found.items()
            for size, right in zip(sizes[attack], grid, strict=True)
        ]
        attacked = {label: grid[1:] for label, grid in fgsm.items()}  # without eps 0
        claims = [best(self.claims[0], "FGSM", attacked, self.name)]
        claims += [best(self.claims[1], "JSMA", jsma, self.name) if self.ahead else behind(self.claims[1], jsma)]
        return {"rows": rows, "claims": claims}


def best(name: str, attack: str, right: Right, where: str) -> ClaimRow:
    """Judge whether Jacobian regularisation is more accurate under an attack than every other single defence."""
    gaps = {other: _ahead(right, JACOBIAN, other, len(OTHERS)) for other in OTHERS}
    return {
        "name": name,
        "statement": f"Jacobian regularisation resists {attack} best ({where}).",
        "source": SOURCE,
        "rule": "Accuracy of the network trained on with it (post-processing), mean over all sizes above 0, minus that "
        "of no defence, adversarial training, input gradient and cross-Lipschitz (post-processing): all intervals "
        "above 0. One below 0: does not hold.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": f"Ahead of {listed(gaps)}.",
        "power": to_decide(gaps, right[JACOBIAN].shape[1]),
    }


def behind(name: str, right: Right) -> ClaimRow:
    """Judge whether input-gradient regularisation is more accurate under the 1-pixel JSMA than the Jacobian's."""
    gaps = {"input gradient": _ahead(right, GRADIENT, JACOBIAN, 1)}
    return {
        "name": name,
        "statement": "On MNIST, Jacobian regularisation stays below input-gradient regularisation under JSMA.",
        "source": SOURCE,
        "rule": "Accuracy with the input gradient's penalty minus that with the Jacobian's, both post-processing, mean "
        "over all changes of a pixel: the interval above 0.",
        "verdict": above(gaps["input gradient"]),
        "evidence": f"Ahead: {listed(gaps)}.",
        "power": to_decide(gaps, right[JACOBIAN].shape[1]),
    }


def _ahead(right: Right, ours: str, other: str, count: int) -> Interval:
    return paired_gap(right[ours], right[other], 1 - 0.05 / count)


def _right(io: Io, task: Any) -> Tensor:
    predicted, y, _ = read_predictions(io.result(task).folder / "predictions.parquet")
    return predicted[0] == y


def _accuracy(right: Tensor) -> Interval:
    return accuracy(right.long(), right.new_ones(len(right)).long())
