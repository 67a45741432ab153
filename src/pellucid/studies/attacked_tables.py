"""Robust accuracies of networks under attacks, and what the strongest takes from the weakest, as a task."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.metrics import accuracy
from pellucid.spec import Reals, register
from pellucid.store import write_json
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns, read_predictions
from pellucid.tasks.training import TaskField

UNPRINTED = -1.0  # an accuracy that the paper does not print


@register("task", "attacked_tables")
@dataclass(frozen=True, kw_only=True)
class AttackedTables:
    """tables.json: accuracy with interval for each network, attack and eps, the attack's cost and its warnings.

    networks, attacks, evaluations and printed stand side by side, one entry a measurement; printed (where given)
    is the paper's accuracy at the largest eps, -1 where it has none. The readings compare, network by network,
    the first attack with the last on the images that both were made for, and what is printed with what was found.
    """

    scale: str
    networks: tuple[str, ...]
    attacks: tuple[str, ...]
    evaluations: tuple[TaskField, ...]
    printed: Reals = ()

    def title(self) -> str:
        """Name the work for people."""
        return "tables"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        right = {
            (network, attack): _right(io, task)
            for network, attack, task in zip(self.networks, self.attacks, self.evaluations)
        }
        rows = [row for place in range(len(self.evaluations)) for row in self._rows(io, place)]
        readings = [line for network in dict.fromkeys(self.networks) for line in _reading(network, right)]
        readings += _beside_the_printed(rows)
        write_json(io.scratch / "tables.json", {"scale": self.scale, "rows": rows, "readings": readings, "claims": []})
        return ["tables.json"]

    def _rows(self, io: Io, place: int) -> list[dict[str, Any]]:
        task = self.evaluations[place]
        folder = io.result(task).folder
        predictions, labels, epsilons = read_predictions(folder / "predictions.parquet")
        sizes = read_columns(folder / "sizes.parquet")
        summary = io.result(task).json("summary.json")
        spent = summary["passes"]["attack"]
        printed = self.printed[place] if self.printed else UNPRINTED
        rows = []
        for number, eps in enumerate(epsilons):
            found = accuracy(predictions[0, number], labels)
            last = number == len(epsilons) - 1
            rows.append(
                {
                    "network": self.networks[place],
                    "attack": self.attacks[place],
                    "epsilon": None if math.isnan(eps) else eps,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "images": len(labels),
                    "printed": printed if last and printed != UNPRINTED else None,
                    "linf": float(sizes["linf"].view(len(epsilons), -1)[number].mean()),
                    "l2": float(sizes["l2"].view(len(epsilons), -1)[number].mean()),
                    "forward": spent["forward"][number],
                    "backward": spent["backward"][number],
                    "warnings": summary["warnings"] if last else [],
                }
            )
        return rows


def _right(io: Io, task: Any) -> tuple[Tensor, tuple[float, ...]]:
    predictions, labels, epsilons = read_predictions(io.result(task).folder / "predictions.parquet")
    return predictions[0] == labels, epsilons


def _reading(network: str, right: dict[tuple[str, str], tuple[Tensor, tuple[float, ...]]]) -> list[str]:
    """Say what the last attack leaves of the accuracy under the first, on the images of both."""
    attacks = [attack for label, attack in right if label == network]
    (weak, epsilons), (strong, others) = right[network, attacks[0]], right[network, attacks[-1]]
    if len(attacks) < 2 or epsilons != others or len(epsilons) < 2:
        return []
    n = min(weak.shape[1], strong.shape[1])
    said = []
    for number, eps in enumerate(epsilons):
        before, after = (float(rows[number, :n].double().mean()) for rows in (weak, strong))
        if eps > 0:
            said.append(f"at eps {eps:g} {before:.1%} becomes {after:.1%} ({100 * (before - after):.1f} points)")
    return [f"{network}, {attacks[0]} against {attacks[-1]} on the same {n} images: {'; '.join(said)}."]


def _beside_the_printed(rows: list[dict[str, Any]]) -> list[str]:
    said = [f"{row['attack']} {row['value']:.1%} ({row['printed']:.1%})" for row in rows if row["printed"] is not None]
    return [f"Beside the printed accuracy: {', '.join(said)}."] if said else []


def by_measurement(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the rows of each network and attack, eps ascending."""
    return {key: list(group) for key, group in itertools.groupby(rows, key=lambda row: (row["network"], row["attack"]))}
