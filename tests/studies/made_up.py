"""Results of the Ross & Doshi-Velez study with numbers that nobody computed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.spec import digest
from pellucid.store import Result, write_tensors
from pellucid.studies import find_study
from pellucid.studies.ross2018_tables import interpreter_title

IMAGES, CLASSES, EPSILONS = 6, 10, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
VERDICTS = ("holds", "does not hold", "cannot be decided", "holds")


class MadeUpIo:
    """Stands where `Io` would: finds the results of every task of the study in a folder."""

    def __init__(self, folder: Path, scale: str) -> None:
        self.folder, self.study = folder, find_study("ross2018", scale)
        self.tables = tables = self.study.tables
        self.generator = torch.Generator().manual_seed(0)
        self._json(tables, "tables.json", made_up_tables(tables, self.generator))
        for task in tables.norms:
            values = {key: self._random(50).double().numpy() for key in ("true", "next")}
            pq.write_table(pa.table(values), self._file(task, "norms.parquet"))
        for task in tables.explained:
            self._json(task.network, "config.json", {"classes": [str(k) for k in range(CLASSES)]})
            write_tensors(self._file(task, "maps.safetensors"), self._maps(task))

    def result(self, task: Any) -> Result:
        used = {"name": "digits", "images": 200, "cut": "in order", "sha256": "0" * 64}
        if "mnist" in repr(task).lower():
            used["name"] = "mnist"
        meta = {
            "digest": digest(task),
            "data": dict.fromkeys(("train", "validation"), used),
            "seed": 0,
            "passes": {"forward": 1000, "backward": 2000},
            "wall_seconds": 93.0,
            "device": "cpu",
            "threads": 1,
            "versions": {"pellucid": "0", "torch": "2"},
            "commit": None,
            "finished": "2000-01-01T00:00:00+0000",
        }
        return Result(self.folder / digest(task), meta)

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _maps(self, task: Any) -> dict[str, Tensor]:
        labels = torch.arange(IMAGES) % CLASSES
        right = torch.nn.functional.one_hot(labels, CLASSES).float()
        turned = right.clone()
        turned[1] = right[0]  # the attack turns the second image only
        found = {"clean": self._random(IMAGES, 1, 8, 8), "labels": labels, "targets": labels[:, None]}
        found["adversarial"] = (found["clean"] + 0.1).clamp(0, 1)
        found |= {"probabilities_clean": 0.9 * right + 0.01, "probabilities_adversarial": 0.8 * turned + 0.02}
        for number, interpreter in enumerate(task.interpreters):
            shape = (IMAGES, 1, 2, 2) if interpreter_title(interpreter) == "CAM" else (IMAGES, 1, 1, 8, 8)
            found |= {f"maps_{number}_{state}": self._random(*shape) - 0.5 for state in ("clean", "adversarial")}
            found[f"tau_{number}"] = torch.linspace(0.25, 0.75, IMAGES)[:, None]
        return found

    def _file(self, task: Any, name: str) -> Path:
        (self.folder / digest(task)).mkdir(parents=True, exist_ok=True)
        return self.folder / digest(task) / name

    def _json(self, task: Any, name: str, value: Any) -> None:
        self._file(task, name).write_text(json.dumps(value))


def made_up_tables(tables: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return what Ross2018Tables would write; accuracy on the n-th eps of judge j is .9 - .01 j - .1 n."""

    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    labels = list(tables.labels)
    cells = [[interval(0.9 - 0.01 * j - 0.1 * n) for n in range(len(EPSILONS))] for j in range(len(labels))]
    history = [
        {"step": 20 * step, "validation_accuracy": step / 6, "validation_squared_gradient": 1 / step}
        for step in range(1, 7)
    ]
    return {
        "scale": tables.scale,
        "labels": labels,
        "epsilons": EPSILONS,
        "images": 400,
        "selected": labels[2],
        "selected_by": "Best mean of those that were eligible.",
        "selection": {label: [0.9, 0.8, 0.7, 0.6] for label in ("normal", *labels[2:])},
        "transfer": {maker: dict(zip(labels, cells)) for maker in labels},
        "unstable": {label: 3 * (label == labels[1]) for label in labels},
        "history": dict.fromkeys(labels, history),
        "stability": [
            {
                "network": label,
                "interpreter": interpreter_title(interpreter),
                "images": IMAGES,
                "all": interval(0.5) | {"n": IMAGES},
                "kept": interval(-0.00308) | {"n": 1},
            }
            for label, task in zip(tables.explained_labels, tables.explained)
            for interpreter in task.interpreters
        ],
        "claims": [
            {
                "name": name,
                "statement": f"Statement {name}.",
                "source": "paper",
                "rule": "rule",
                "verdict": verdict,
                "evidence": "gap -16.2 points [-19.8, -13.0], 3-4 networks",
            }
            for name, verdict in zip(("L1", "L2", "L6", "L7"), VERDICTS)
        ],
    }
