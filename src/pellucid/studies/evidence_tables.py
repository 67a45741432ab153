"""How much of every map lies on the object, per network and interpreter, as a task."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.metrics import accuracy, bootstrap_mean
from pellucid.spec import register
from pellucid.store import write_json
from pellucid.tasks.io import Io
from pellucid.tasks.locating import MEASURES, NO_NETWORK
from pellucid.tasks.parquet import read_columns
from pellucid.tasks.training import TaskField

NOBODY = "image contrast (no network)"


@register("task", "evidence_tables")
@dataclass(frozen=True, kw_only=True)
class EvidenceTables:
    """tables.json: for each network and interpreter the mean of every measure with interval, on all images and on those
    classified right, and how many maps had none.

    networks and measured stand side by side; interpreters are the names of what was measured for each of them.
    """

    scale: str
    networks: tuple[str, ...]
    interpreters: tuple[str, ...]
    measured: tuple[TaskField, ...]

    def title(self) -> str:
        """Name the work for people."""
        return "tables"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        columns = [read_columns(io.result(task).folder / "evidence.parquet") for task in self.measured]
        rows = [row for label, found in zip(self.networks, columns) for row in self._rows(label, found)]
        write_json(
            io.scratch / "tables.json",
            {
                "scale": self.scale,
                "accuracy": [_accuracy(label, found) for label, found in zip(self.networks, columns)],
                "chance": float(columns[0]["chance"].mean()),
                "rows": rows,
                "readings": _readings(rows, self.networks),
                "claims": [],
            },
        )
        return ["tables.json"]

    def _rows(self, label: str, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        right, rows = found["label"] == found["prediction"], []
        for number, name in enumerate((NOBODY, *self.interpreters), start=NO_NETWORK):
            own = found["interpreter"] == number
            row: dict[str, Any] = {"network": label, "interpreter": name, "images": int(own.sum())}
            row["undefined"] = int(found["mass"][own].isnan().sum())
            for measure in MEASURES:
                row[measure] = _mean(found[measure][own])
                row[f"{measure}_right"] = _mean(found[measure][own & right])
            rows.append(row)
        return rows


def _mean(values: Tensor) -> dict[str, float]:
    return bootstrap_mean(values[~values.isnan()])._asdict()


def _accuracy(label: str, found: dict[str, Tensor]) -> dict[str, Any]:
    own = found["interpreter"] == NO_NETWORK
    return {
        "network": label,
        **accuracy(found["prediction"][own], found["label"][own])._asdict(),
        "images": int(own.sum()),
    }


def _readings(rows: list[dict[str, Any]], networks: tuple[str, ...]) -> list[str]:
    """Name, network by network, the map that lies on the object most, and how many beat the map that asks nobody."""
    said = []
    for label in networks:
        own = [row for row in rows if row["network"] == label]
        nobody = next(row for row in own if row["interpreter"] == NOBODY)
        asked = [row for row in own if row["interpreter"] != NOBODY]
        best = max(asked, key=lambda row: row["precision"]["value"])
        ahead = sum(row["precision"]["value"] > nobody["precision"]["value"] for row in asked)
        said.append(
            f"{label}: {best['interpreter']} finds the letter best (average precision "
            f"{best['precision']['value']:.3f}); "
            f"{ahead} of {len(asked)} maps find it better than image contrast, which asks no network "
            f"({nobody['precision']['value']:.3f})"
        )
    asked = [row for row in rows if row["interpreter"] != NOBODY]
    means = {
        label: torch.tensor([row["precision"]["value"] for row in asked if row["network"] == label])
        for label in networks
    }
    said.append(
        "average precision, mean over the maps: "
        + ", ".join(f"{label} {float(values.mean()):.3f}" for label, values in means.items())
    )
    return said
