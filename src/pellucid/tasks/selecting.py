"""Choosing one of several networks by the rule of Ross & Doshi-Velez, as a task that makes a network."""

import shutil
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.attacks import FGSM
from pellucid.errors import SpecError
from pellucid.metrics import accuracy, bootstrap_mean
from pellucid.models.card import CARD, README
from pellucid.models.checkpoint import CONFIG, WEIGHTS
from pellucid.protocols import AttackField, DataField, Part
from pellucid.spec import Count, Reals, Share, digest, echo, fraction, name_of, register
from pellucid.store import write_json
from pellucid.tasks.io import Io, Opens
from pellucid.tasks.measuring import Evaluate
from pellucid.tasks.parquet import read_predictions
from pellucid.tasks.training import NetworkField, TaskField, network_name

Relation = Literal["relative", "absolute"]


@register("task", "selection")
@dataclass(frozen=True, kw_only=True)
class Selection:
    """The network, of several, that withstands examples made for an undefended one best and is still accurate.

    a_c = clean accuracy of candidate c, b_c = its mean accuracy over eps on the examples of the normal network
    relative:  choose argmax b_c among those with a_c >= keep_share a_normal
    absolute:  choose argmax b_c among those with a_c >= keep_share
    Ties go to the earlier candidate. If none qualifies the one of the highest a_c is taken, and the result says so.

    The result is a checkpoint (`load_classifier` reads it) and selection.json: the rule, every candidate's numbers with
    95 % intervals (Wilson; of b_c bootstrap over images), whether it qualified, and the choice. Shares are compared as
    fractions of counts, without rounding. evaluation follows from the other fields: what is given for it is not read.
    Raises SpecError for no candidates, for one that is there twice, for networks that code makes (they are no files to
    copy), and for epsilons that are not above 0.
    Source: Ross & Doshi-Velez 2018, the choice of lambda. Deviations: the paper asks for 97 % of accuracy on normal
    validation examples, which reads both ways (`relation`); its authors' code chooses on the first 1,024 test images,
    here it is on validation images.
    """

    makes_network: ClassVar[bool] = True

    candidates: tuple[NetworkField, ...]
    normal: NetworkField
    data: DataField
    part: Part = "validation"
    attack: AttackField = field(default_factory=lambda: FGSM(eps=0.3))
    epsilons: Reals = (0.1, 0.2, 0.3)
    keep_share: Share = 0.97
    relation: Relation = "relative"
    images: Count | None = None
    chunk: Count = 1000
    evaluation: TaskField | None = None

    def check(self) -> None:
        """Refuse what cannot be chosen from, and describe the one measurement that the choice needs."""
        if not self.candidates:
            raise SpecError("task selection.candidates: at least one network is needed")
        for place, task in enumerate(self.candidates):
            if isinstance(task, Opens):
                raise SpecError(
                    f"task selection.candidates: {name_of(task)} is code, no files to copy; choose from trained "
                    "networks or checkpoints"
                )
            if digest(task) in map(digest, self.candidates[:place]):
                raise SpecError(f"task selection.candidates: {echo(network_name(task), bare=True)} is there twice")
        if not self.epsilons or min(self.epsilons) <= 0:
            raise SpecError("task selection.epsilons must be numbers above 0")
        evaluation = Evaluate(
            network=self.normal,
            judges=self.candidates,
            data=self.data,
            part=self.part,
            attack=self.attack,
            epsilons=(0.0, *self.epsilons),
            images=self.images,
            chunk=self.chunk,
        )
        object.__setattr__(self, "attack", evaluation.attack)
        object.__setattr__(self, "evaluation", evaluation)

    def title(self) -> str:
        """Name the work for people."""
        return f"select one of {len(self.candidates)} networks, {self.part}"

    def run(self, io: Io) -> list[str]:
        """Judge the candidates, and copy the chosen network."""
        folder = io.result(self.evaluation).folder
        predictions, labels, _ = read_predictions(folder / "predictions.parquet")
        found = self.judge(predictions == labels)
        chosen = io.result(self.candidates[found["chosen"]]).folder
        copied = [name for name in (WEIGHTS, CONFIG, "history.json", CARD, README) if (chosen / name).is_file()]
        for name in copied:
            shutil.copyfile(chosen / name, io.scratch / name)
        write_json(io.scratch / "selection.json", found)
        return [*copied, "selection.json"]

    def judge(self, right: Tensor) -> dict[str, Any]:
        """Return what selection.json holds, from right bool (1 + J, 1 + E, N), the normal network and eps 0 first."""
        n = right.shape[2]
        clean, attacked = right[:, 0].sum(1).tolist(), right[:, 1:].sum((1, 2)).tolist()
        needed = Fraction(repr(self.keep_share)) * (clean[0] if self.relation == "relative" else n)
        qualified = [place for place in range(len(self.candidates)) if clean[1 + place] >= needed]
        if qualified:
            chosen = max(qualified, key=lambda place: attacked[1 + place])
            reason = f"highest score of the {len(qualified)} that qualify"
        else:
            chosen = max(range(len(self.candidates)), key=lambda place: clean[1 + place])
            reason = "none qualifies, so the most accurate on clean images is taken"
        everyone = [self._numbers(task, rows) for task, rows in zip((self.normal, *self.candidates), right)]
        for place, numbers in enumerate(everyone[1:]):
            numbers["qualifies"] = place in qualified
        return {
            "rule": self.rule(),
            "part": self.part,
            "images": n,
            "epsilons": list(self.epsilons),
            "needed": float(needed / n),
            "normal": everyone[0],
            "candidates": everyone[1:],
            "chosen": chosen,
            "network": everyone[1 + chosen]["network"],
            "name": everyone[1 + chosen]["name"],
            "reason": reason,
        }

    def rule(self) -> str:
        """Say the rule in words."""
        share = f"{100 * self.keep_share:g} %"
        kept = f"{share} of the normal network's" if self.relation == "relative" else f"{share}"
        grid = ", ".join(fraction(eps) for eps in self.epsilons)
        return (
            f"highest mean accuracy over eps {grid} on {name_of(self.attack)} examples made for the normal network, "
            f"among networks whose clean {self.part} accuracy is at least {kept}; "
            "the earlier of equals; if there is none, the most accurate on clean images"
        )

    def _numbers(self, task: Any, right: Tensor) -> dict[str, Any]:
        shares = [accuracy(row.long(), torch.ones_like(row, dtype=torch.long))._asdict() for row in right]
        return {
            "name": network_name(task),
            "network": digest(task),
            "clean": shares[0],
            "attacked": [{"epsilon": eps, **share} for eps, share in zip(self.epsilons, shares[1:])],
            "score": bootstrap_mean(right[1:].double().mean(0))._asdict(),
        }
