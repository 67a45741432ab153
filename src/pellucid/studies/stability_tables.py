"""Rank correlations of maps under attack, per network and eps, with the number of images kept, as a task."""

from dataclasses import dataclass
from typing import Any

import torch

from pellucid.metrics import accuracy, stability
from pellucid.spec import Reals, register
from pellucid.store import write_json
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "stability_tables")
@dataclass(frozen=True, kw_only=True)
class StabilityTables:
    """tables.json: for each network and eps the mean tau with interval, images, those kept, those without a tau.

    networks, epsilons, explained and printed stand side by side, one entry a measurement; printed below -1 is none.
    """

    scale: str
    networks: tuple[str, ...]
    epsilons: Reals
    explained: tuple[TaskField, ...]
    printed: Reals

    def title(self) -> str:
        """Name the work for people."""
        return "tables"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        rows = [self._row(io, place) for place in range(len(self.explained))]
        write_json(
            io.scratch / "tables.json",
            {"scale": self.scale, "rows": rows, "readings": _readings(rows), "claims": []},
        )
        return ["tables.json"]

    def _row(self, io: Io, place: int) -> dict[str, Any]:
        maps = io.result(self.explained[place]).tensors("maps.safetensors")
        before, after = (maps[f"probabilities_{state}"].argmax(1) for state in ("clean", "adversarial"))
        tau, printed = maps["tau_0"][:, 0], self.printed[place]
        kept = stability(tau, before == after)
        everyone = stability(tau, torch.ones_like(tau, dtype=torch.bool))
        return {
            "network": self.networks[place],
            "epsilon": self.epsilons[place],
            **kept.tau._asdict(),
            "kept": kept.kept,
            "undefined": kept.undefined,
            "all_images": everyone.tau._asdict(),
            "images": len(tau),
            "accuracy_before": accuracy(before, maps["labels"]).value,
            "accuracy_after": accuracy(after, maps["labels"]).value,
            "printed": printed if printed >= -1 else None,
        }


def _readings(rows: list[dict[str, Any]]) -> list[str]:
    """Say, for each family of networks and the smallest eps, how the defences compare with none."""
    smallest, said = min(row["epsilon"] for row in rows), []
    for small in (False, True):
        family = [row for row in rows if row["network"].endswith("Small") == small and row["epsilon"] == smallest]
        parts = [f"{row['network']} {row['value']:.3f} (kept {row['kept']} of {row['images']})" for row in family]
        if parts:
            said.append(f"tau at eps {smallest:g}: " + "; ".join(parts))
    return said
