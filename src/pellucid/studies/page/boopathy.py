"""The page of the Boopathy et al. study, from its tables."""

from collections import Counter
from typing import Any, TypeAlias

from pellucid.report import Cell, Claim, Curve, CurveFigure, Panel, Report, Section, Table
from pellucid.spec import digest
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.io import Io

Row: TypeAlias = tuple[Cell | str, ...]


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page, from the task that makes it and the results that it names."""
    found, measured = io.result(task.tables).json("tables.json"), task.tables
    trained = {method: digest(network)[:12] for method, network in zip(measured.methods, measured.networks)}
    keys: dict[tuple[str, str, float], str] = {}
    for method, evaluation in zip(measured.methods, measured.attacked):
        keys |= {(method, "PGD", eps): digest(evaluation)[:12] for eps in evaluation.epsilons}
    for place, evaluation in enumerate(measured.autoattacked):
        method = measured.methods[place % len(measured.methods)]
        keys[method, "AutoAttack", evaluation.epsilons[0]] = digest(evaluation)[:12]
    rows = found["rows"]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    images = rows[0]["images"]
    verdicts = Counter(claim["verdict"] for claim in found["claims"])
    choices = tuple(zip(task.choices[::2], task.choices[1::2]))
    settings = {
        digest(part)[:12]: settings_of(part, io.result(part), digest(part)[:12], f"{method}, {what}")
        for what, parts in (
            ("training", measured.networks),
            ("PGD", measured.attacked),
            ("AutoAttack", measured.autoattacked),
        )
        for place, part in enumerate(parts)
        for method in (measured.methods[place % len(measured.methods)],)
    }
    return Report(
        title="Proper network interpretability helps adversarial robustness",
        subtitle="Boopathy et al. 2020, Table 1: the Small network on MNIST, trained by every method of the paper. "
        f"Scale: {found['scale']}.",
        verdict=tuple(f"{count} of {len(found['claims'])} claims: {verdict}." for verdict, count in verdicts.items()),
        claims=tuple(Claim(**claim) for claim in found["claims"]),
        sections=(
            Section(
                "Accuracy under attack",
                f"Share of {images} test images that are classified right, with 95 % intervals; the paper's value, "
                "from its own training schedule, is printed beside ours.",
                (_curves(rows, keys), *(_table(rows, keys, attack, images) for attack in attacks)),
            ),
            Section("What training costs", _COST, (_costs(found["costs"], trained),)),
            Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
        ),
        settings=tuple(settings.values()),
    )


_COST = (
    "Time and images passed through the network, for each image that a training batch holds (paper: Figure 3, which "
    "gives the time of an epoch). One run on a machine with other work: benchmarks/defences.py races them side by side."
)


def _table(rows: list[dict[str, Any]], keys: dict[tuple[str, str, float], str], attack: str, images: int) -> Table:
    own = [row for row in rows if row["attack"] == attack]
    grid = list(dict.fromkeys(row["epsilon"] for row in own))
    cells = {
        (row["method"], row["epsilon"]): Cell(
            row["value"], row["low"], row["high"], row["printed"], keys.get((row["method"], attack, row["epsilon"]))
        )
        for row in own
    }
    methods = dict.fromkeys(row["method"] for row in own)
    lines: tuple[Row, ...] = tuple(
        (method, *(cells.get((method, eps), Cell(None)) for eps in grid)) for method in methods
    )
    notes = (
        ("In the printed column of eps 0 the values of Int and Int-Adv are exchanged (the released networks say so).",)
        if attack == "PGD"
        else ("Not in the paper.",)
    )
    name = "200-step PGD" if attack == "PGD" else attack
    header = ("method", *("clean" if eps == 0 else f"eps {eps:g}" for eps in grid))
    return Table(f"Accuracy under {name}, {images} images", header, lines, notes)


def _curves(rows: list[dict[str, Any]], keys: dict[tuple[str, str, float], str]) -> CurveFigure:
    own = [row for row in rows if row["attack"] == "PGD"]
    methods = list(dict.fromkeys(row["method"] for row in own))
    groups = {
        "without an adversarial loss": [m for m in methods if m in _PLAIN],
        "with an adversarial loss": [m for m in methods if m not in _PLAIN],
    }
    panels = []
    for title, names in groups.items():
        lines = []
        for method in names:
            line = [row for row in own if row["method"] == method]
            lines.append(
                Curve(
                    method,
                    tuple(row["epsilon"] for row in line),
                    tuple(row["value"] for row in line),
                    tuple(row["low"] for row in line),
                    tuple(row["high"] for row in line),
                    colour=_LOOKS[method][0],
                    marker=_LOOKS[method][1],
                    settings=keys[method, "PGD", line[0]["epsilon"]],
                )
            )
        panels.append(Panel(title, tuple(lines), "eps", "accuracy"))
    return CurveFigure("Accuracy under PGD", tuple(panels))


_LOOKS = {  # a colour for each family, a marker for each of its two panels
    "Normal": ("#444444", "o"),
    "IG-Norm": ("#d55e00", "o"),
    "IG-Sum-Norm": ("#d55e00", "s"),
    "Int-one-class": ("#009e73", "o"),
    "Int": ("#0072b2", "o"),
    "Int-Adv": ("#0072b2", "s"),
    "Int2": ("#cc79a7", "o"),
    "Int2-Adv": ("#cc79a7", "s"),
    "Adv": ("#444444", "s"),
    "TRADES": ("#e69f00", "s"),
}
_PLAIN = ("Normal", "IG-Norm", "Int-one-class", "Int", "Int2")


def _costs(costs: list[dict[str, Any]], trained: dict[str, str]) -> Table:
    least = next(row["seconds_per_image"] for row in costs if row["method"] == "Normal")
    rows: tuple[Row, ...] = tuple(
        (
            row["method"],
            f"{row['steps']:,}",
            Cell(1000 * row["seconds_per_image"], settings=trained[row["method"]], style="number"),
            Cell(row["seconds_per_image"] / least, style="number"),
            Cell(row["forward"], style="number"),
            Cell(row["backward"], style="number"),
        )
        for row in costs
    )
    header = ("method", "batches", "ms an image", "times Normal", "forward", "backward")
    return Table("Cost of training, per image", header, rows)
