"""The numbers of the Jakubovitz & Giryes study: accuracy, rho_adv and Jacobians of every network, and their order."""

import json
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from typing import Any

from torch import Tensor

from pellucid.metrics import Interval, accuracy, bootstrap_mean
from pellucid.spec import register
from pellucid.store import write_json
from pellucid.studies import claims
from pellucid.studies.jakubovitz2018_claims import NONE, Measured, Numbers, judge
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns, read_predictions
from pellucid.tasks.training import TaskField

MEASURES = {
    "accuracy": "right",
    "rho_adv": "share",
    "jacobian_clean": "jacobian_clean",
    "jacobian_perturbed": "jacobian_perturbed",
}
MNIST_TABLES = ("Table 1", "Table 2", "Table 3")


@register("task", "jakubovitz2018_tables")
@dataclass(frozen=True, kw_only=True)
class Jakubovitz2018Tables:
    """tables.json: for each network accuracy, rho_adv, Jacobian norms and ratios with intervals and printed values;
    whether the orderings of the printed values are found again; the verdicts on the paper's claims.

    labels, networks, evaluations and boundaries stand side by side, one entry a network. An ordering "holds" where the
    paired 95 % interval of the difference is on the printed side of 0 and "does not hold" where it is on the other.
    """

    scale: str
    labels: tuple[str, ...]
    networks: tuple[TaskField, ...]
    evaluations: tuple[TaskField, ...]
    boundaries: tuple[TaskField, ...]

    def title(self) -> str:
        """Name the work for people."""
        return "tables and claims"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        numbers, notes = {}, {}
        for label, evaluation, boundary in zip(self.labels, self.evaluations, self.boundaries, strict=True):
            numbers[label], notes[label] = _read(io, evaluation, boundary)
        rows = [_row(label, numbers) | notes[label] for label in self.labels]
        found = orderings(numbers)
        tables = {
            "scale": self.scale,
            "rows": rows,
            "orderings": found,
            "readings": _readings(rows, found),
            "claims": judge(numbers),
        }
        write_json(io.scratch / "tables.json", tables)
        return ["tables.json"]


def printed_tables() -> dict[str, Any]:
    """Return the paper's tables as they are printed: table -> network -> measure -> value, or None where it is lost."""
    found: dict[str, Any] = json.loads(files("pellucid.studies").joinpath("jakubovitz2018.json").read_text())
    return found


def printed() -> dict[str, dict[str, float]]:
    """Return the printed values on MNIST: network -> measure -> value."""
    merged: dict[str, dict[str, float]] = {}
    tables = printed_tables()
    for table in MNIST_TABLES:
        for network, values in tables[table].items():
            known = {measure: value for measure, value in values.items() if value is not None}
            merged[network] = merged.get(network, {}) | known
    return merged


def orderings(numbers: Numbers) -> list[dict[str, Any]]:
    """Return every pair of networks that the paper orders by a measure, with the difference found, largest first."""
    found = []
    for measure, field in MEASURES.items():
        values = {label: p[measure] for label, p in printed().items() if label in numbers and measure in p}
        ordered = sorted(values, key=lambda label: -values[label])
        for above, below in combinations(ordered, 2):
            if values[above] == values[below]:
                continue
            ours = claims.paired_gap(getattr(numbers[above], field), getattr(numbers[below], field))
            found.append(
                {
                    "measure": measure,
                    "above": above,
                    "below": below,
                    "neighbours": ordered.index(below) == ordered.index(above) + 1,
                    "printed": values[above] - values[below],
                    **ours._asdict(),
                    "verdict": claims.above(ours),
                }
            )
    return found


def _read(io: Io, evaluation: Any, boundary: Any) -> tuple[Measured, dict[str, int]]:
    predictions, labels, _ = read_predictions(io.result(evaluation).folder / "predictions.parquet")
    columns = read_columns(io.result(boundary).folder / "boundaries.parquet")
    share = columns["share"]
    measured = Measured(
        right=predictions[0, 0] == labels,
        share=share[~share.isnan()],
        jacobian_clean=columns["jacobian_clean"],
        jacobian_perturbed=columns["jacobian_perturbed"],
    )
    notes = {
        "images": len(labels),
        "measured": len(share),
        "black": int(share.isnan().sum()),
        "unreached": int((columns["before"] == columns["after"]).sum()),
    }
    return measured, notes


def _row(label: str, numbers: Numbers) -> dict[str, Any]:
    ours, none, theirs = numbers[label], numbers.get(NONE), printed()
    row: dict[str, Any] = {
        "network": label,
        "accuracy": accuracy(ours.right.long(), ours.right.new_ones(len(ours.right)).long())._asdict(),
        **{measure: _mean(getattr(ours, field)) for measure, field in MEASURES.items() if field != "right"},
        "perturbed_over_clean": claims.paired_ratio(ours.jacobian_perturbed, ours.jacobian_clean)._asdict(),
        "printed": dict(theirs.get(label, {})),
    }
    if none is not None:
        for field in ("jacobian_clean", "jacobian_perturbed"):
            row[f"{field}_over_undefended"] = claims.paired_ratio(getattr(ours, field), getattr(none, field))._asdict()
    own = row["printed"]
    if "jacobian_clean" in own:
        own["perturbed_over_clean"] = own["jacobian_perturbed"] / own["jacobian_clean"]
        for field in ("jacobian_clean", "jacobian_perturbed"):
            own[f"{field}_over_undefended"] = own[field] / theirs[NONE][field]
    return row


def _mean(values: Tensor) -> dict[str, float]:
    return bootstrap_mean(values)._asdict()


def _readings(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """Name the most robust networks, and say measure by measure how many of the printed orderings are found again."""
    ranked = sorted(rows, key=lambda row: -row["rho_adv"]["value"])
    said = [f"rho_adv, largest first: {'; '.join(_with_interval(row) for row in ranked)}."]
    for measure in MEASURES:
        verdicts = [pair["verdict"] for pair in found if pair["measure"] == measure]
        if verdicts:
            holds, reversed_ = (verdicts.count(verdict) for verdict in ("holds", "does not hold"))
            said.append(
                f"{measure.replace('_', ' ') if measure != 'rho_adv' else measure}: of the {len(verdicts)} orderings "
                f"of two networks that the paper prints, {holds} hold, {reversed_} are reversed, "
                f"{len(verdicts) - holds - reversed_} cannot be decided."
            )
    return said


def _with_interval(row: dict[str, Any]) -> str:
    found = Interval(**row["rho_adv"])
    return f"{row['network']} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
