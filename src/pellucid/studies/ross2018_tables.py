"""The numbers of the Ross & Doshi-Velez study: cheap statistics on top of the stored per-example results."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.metrics import Interval, accuracy, bootstrap_mean, stability
from pellucid.spec import Reals, name_of, register
from pellucid.store import write_json
from pellucid.studies.ross2018_claims import judge_claims
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns, read_predictions
from pellucid.tasks.training import TaskField

PRINTED: dict[str, Any] = json.loads((Path(__file__).parent / "ross2018.json").read_text())
FLOOR = 1e-20  # of gradient norms on a log axis, as in the paper's Figure 4


@dataclass(frozen=True)
class Numbers:
    """Everything the tables and claims are computed from, image by image."""

    labels: tuple[str, ...]
    lambdas: tuple[float, ...]
    epsilons: tuple[float, ...]
    correct: dict[str, dict[str, Tensor]]  # maker -> judge -> bool (E, N)
    selection: dict[str, Tensor]  # network -> bool (E, N) on validation examples made for "normal"
    norms: dict[str, dict[str, Tensor]]  # network -> "true" / "next" -> (N,)
    history: dict[str, list[dict[str, float]]]

    @property
    def regularised(self) -> tuple[str, ...]:
        """The gradient-regularised networks, by ascending lambda."""
        return self.labels[2:]

    @cached_property
    def selected(self) -> str:
        """The regularised network that the rule of lambda selects (methods 3.8), on validation images."""
        if not self.eligible:
            return max(self.regularised, key=lambda label: float(self.selection[label][0].float().mean()))
        return max(self.eligible, key=lambda label: float(self.selection[label][1:].float().mean()))

    @cached_property
    def eligible(self) -> list[str]:
        """The regularised networks that keep 97 % of the normal network's clean validation accuracy."""
        keep = 0.97 * float(self.selection["normal"][0].float().mean())
        return [label for label in self.regularised if float(self.selection[label][0].float().mean()) >= keep]

    @property
    def selected_by(self) -> str:
        """Say how the selection was made."""
        if self.eligible:
            return "Best mean over eps above 0 among those that keep 97 % of the normal network's clean accuracy."
        return "None keeps 97 % of the normal network's clean accuracy, so the most accurate clean one is taken."


@register("task", "ross2018_tables")
@dataclass(frozen=True, kw_only=True)
class Ross2018Tables:
    """Tables and verdicts of the study as tables.json; nothing in it depends on time or machine."""

    scale: str
    labels: tuple[str, ...]
    lambdas: Reals
    networks: tuple[TaskField, ...]
    transfers: tuple[TaskField, ...]
    selection: TaskField
    norms: tuple[TaskField, ...]
    explained_labels: tuple[str, ...]
    explained: tuple[TaskField, ...]

    version = 1

    def title(self) -> str:
        """Name the work for people."""
        return "tables and claims"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        numbers = self.read(io)
        tables = {
            "scale": self.scale,
            "labels": list(self.labels),
            "epsilons": list(numbers.epsilons),
            "images": int(numbers.correct["normal"]["normal"].shape[1]),
            "selected": numbers.selected,
            "selected_by": numbers.selected_by,
            "unstable": {label: self._unstable(io, task) for label, task in zip(self.labels, self.transfers)},
            "selection": {k: [float(row.float().mean()) for row in v] for k, v in numbers.selection.items()},
            "transfer": {
                maker: {judge: [_interval(accuracy_of(row)) for row in rows] for judge, rows in judges.items()}
                for maker, judges in numbers.correct.items()
            },
            "norms": {label: {k: _norms(v) for k, v in kinds.items()} for label, kinds in numbers.norms.items()},
            "history": numbers.history,
            "stability": self._stability(io),
            "claims": judge_claims(numbers),
        }
        write_json(io.scratch / "tables.json", tables)
        return ["tables.json"]

    def read(self, io: Io) -> Numbers:
        """Read the per-example results of all inputs."""
        correct: dict[str, dict[str, Tensor]] = {}
        epsilons: tuple[float, ...] = ()
        for maker, task in zip(self.labels, self.transfers):
            predicted, y, epsilons = read_predictions(io.result(task).folder / "predictions.parquet")
            judges = (maker, *(label for label in self.labels if label != maker))
            found = {judge: rows == y for judge, rows in zip(judges, predicted)}
            correct[maker] = {label: found[label] for label in self.labels}
        predicted, y, _ = read_predictions(io.result(self.selection).folder / "predictions.parquet")
        names = ("normal", *self.labels[2:])
        return Numbers(
            labels=self.labels,
            lambdas=self.lambdas,
            epsilons=epsilons,
            correct=correct,
            selection={label: rows == y for label, rows in zip(names, predicted)},
            norms={label: _read_norms(io.result(task).folder) for label, task in zip(self.labels, self.norms)},
            history={label: io.result(task).json("history.json") for label, task in zip(self.labels, self.networks)},
        )

    @staticmethod
    def _unstable(io: Io, task: Any) -> int:
        """Return how many of the maker's predictions depended on the batch they were made in."""
        return int(read_columns(io.result(task).folder / "sizes.parquet")["unstable"].sum())

    def _stability(self, io: Io) -> list[dict[str, Any]]:
        rows = []
        for label, task in zip(self.explained_labels, self.explained):
            maps = io.result(task).tensors("maps.safetensors")
            before, after = maps["probabilities_clean"].argmax(1), maps["probabilities_adversarial"].argmax(1)
            for number, interpreter in enumerate(task.interpreters):
                tau = maps[f"tau_{number}"][:, 0]  # of the true class, the only one explained
                everyone = stability(tau, torch.ones_like(tau, dtype=torch.bool))
                kept = stability(tau, before == after)
                rows.append(
                    {
                        "network": label,
                        "interpreter": interpreter_title(interpreter),
                        "images": len(tau),
                        "all": _interval(everyone.tau) | {"n": everyone.kept},
                        "kept": _interval(kept.tau) | {"n": kept.kept},
                    }
                )
        return rows


def interpreter_title(interpreter: Any) -> str:
    """Return an interpreter's name for people, with its score where it has one."""
    score = getattr(interpreter, "score", None)
    return {"cam": "CAM"}.get(name_of(interpreter), name_of(interpreter)) + (
        f" of {score.replace('_', '-')}" if score else ""
    )


def accuracy_of(correct: Tensor) -> Interval:
    """Return the share of right answers with its Wilson interval."""
    return accuracy(correct.long(), torch.ones_like(correct, dtype=torch.long))


def _interval(interval: Interval) -> dict[str, float | None]:
    return {key: (None if v != v else float(v)) for key, v in zip(("value", "low", "high"), interval)}


def _read_norms(folder: Path) -> dict[str, Tensor]:
    columns = read_columns(folder / "norms.parquet")
    return {key: columns[key] for key in ("true", "next")}


def _norms(values: Tensor) -> dict[str, Any]:
    logs = values.clamp_min(FLOOR).log10()
    return {
        "median": float(values.median()),
        "mean": float(values.mean()),
        "mean_log10": _interval(bootstrap_mean(logs)),
        "share_below_floor": float((values < FLOOR).double().mean()),
    }
