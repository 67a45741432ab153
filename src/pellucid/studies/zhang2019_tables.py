"""The numbers of the Zhang & Zhu study: accuracies on transformed images beside the printed ones, maps, the claims."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torch import Tensor

from pellucid.metrics import accuracy, accuracy_on_correct, bootstrap_mean, wilson
from pellucid.spec import register
from pellucid.store import write_json
from pellucid.studies.zhang2019_claims import UNTOUCHED, Measured, judge
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns, read_predictions
from pellucid.tasks.training import TaskField

CLEAN, CIFAR10 = "Table 1, CIFAR10", "Table 6, CIFAR-10, saturated"
MAPPED = ("probability", "sparsity", "contours", "similarity", "distance")


@register("task", "zhang2019_tables")
@dataclass(frozen=True, kw_only=True)
class Zhang2019Tables:
    """tables.json: for each architecture, method and level accuracy, accuracy on correct and their printed values,
    robustness under PGD, what maps look like, and the verdicts on the paper's claims.

    architectures, methods, networks, transformed, attacked and mapped stand side by side, one entry a network. `levels`
    name the transformations of `transformed`, `map_levels` those of `mapped`.
    """

    scale: str
    levels: tuple[str, ...]
    map_levels: tuple[str, ...]
    architectures: tuple[str, ...]
    methods: tuple[str, ...]
    networks: tuple[TaskField, ...]
    transformed: tuple[TaskField, ...]
    attacked: tuple[TaskField, ...]
    mapped: tuple[TaskField, ...]

    def title(self) -> str:
        """Name the work for people."""
        return "tables and claims"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        rows, maps, networks = [], [], []
        numbers: dict[str, dict[str, Measured]] = {}
        for place, (architecture, method) in enumerate(zip(self.architectures, self.methods, strict=True)):
            who = {"architecture": architecture, "method": method}
            found = _by_level(io, self.transformed[place], "transformed.parquet", self.levels)
            looked = _by_level(io, self.mapped[place], "sensitivity.parquet", self.map_levels)
            robust = _robust(io, self.attacked[place])
            rows += [who | row for row in _accuracies(method, found)]
            maps += [who | row for row in _map_rows(looked)]
            networks.append(who | _network(io, method, self.networks[place], robust))
            numbers.setdefault(architecture, {})[method] = Measured(
                right={level: columns["predicted"] == columns["label"] for level, columns in found.items()},
                robust=robust,
                sparsity={level: columns["sparsity"] for level, columns in looked.items()},
                contours={level: columns["contours"] for level, columns in looked.items()},
            )
        tables = {
            "scale": self.scale,
            "networks": networks,
            "rows": rows,
            "maps": maps,
            "claims": judge(numbers),
        }
        write_json(io.scratch / "tables.json", tables)
        return ["tables.json"]


def printed_tables() -> dict[str, Any]:
    """Return the paper's tables as they are printed: table -> "rows" -> network -> level -> share, and a "note"."""
    found: dict[str, Any] = json.loads(files("pellucid.studies").joinpath("zhang2019.json").read_text())
    return found


def printed(method: str, level: str) -> float | None:
    """Return what the paper prints for CIFAR-10 and ResNet-18; None where it prints nothing."""
    tables = printed_tables()
    rows = tables[CLEAN if level in ("clean", "robustness") else CIFAR10]["rows"]
    found: float | None = rows.get(method, {}).get(level)
    return found


def _by_level(io: Io, task: Any, file: str, levels: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Return the columns of a task's result for the untouched images and for every level."""
    columns = read_columns(io.result(task).folder / file)
    return {
        level: {name: values[columns["transform"] == number] for name, values in columns.items()}
        for number, level in enumerate((UNTOUCHED, *levels))
    }


def _robust(io: Io, task: Any) -> Tensor:
    predictions, labels, _ = read_predictions(io.result(task).folder / "predictions.parquet")
    return predictions[0, -1] == labels


def _accuracies(method: str, found: dict[str, dict[str, Tensor]]) -> list[dict[str, Any]]:
    clean, labels = found[UNTOUCHED]["predicted"], found[UNTOUCHED]["label"]
    return [
        {
            "level": level,
            "images": len(labels),
            "accuracy": accuracy(columns["predicted"], labels)._asdict(),
            "on_correct": accuracy_on_correct(clean, columns["predicted"], labels)._asdict(),
            "on_correct_of_batches": accuracy_on_correct(clean, columns["predicted"], labels, batch=32)._asdict(),
            "correct": int((clean == labels).sum()),
            "printed": printed(method, level),
        }
        for level, columns in found.items()
    ]


def _map_rows(found: dict[str, dict[str, Tensor]]) -> list[dict[str, Any]]:
    return [
        {
            "level": level,
            "images": len(columns["label"]),
            **{
                name: bootstrap_mean(values[values.isfinite()])._asdict()
                for name, values in columns.items()
                if name in MAPPED
            },
        }
        for level, columns in found.items()
    ]


def _network(io: Io, method: str, task: Any, robust: Tensor) -> dict[str, Any]:
    result = io.result(task)
    schedule = result.json("card.json")["training"]["schedule"]
    return {
        "robustness": wilson(int(robust.sum()), len(robust))._asdict(),
        "attacked": len(robust),
        "printed": {name: printed(method, name) for name in ("clean", "robustness")},
        "steps": result.json("history.json")[-1]["step"],
        "kept": schedule["kept"],
        "stopped": schedule["stopped"],
        "seconds": result.meta["wall_seconds"],
    }
