"""The content of the page on Jacobian regularisation, from its tables and per-example results."""

from typing import Any

from pellucid.report import Box, BoxFigure, BoxPanel, Cell, Claim, Report, Section, Table
from pellucid.report.content import Style
from pellucid.spec import digest, name_of
from pellucid.studies.jakubovitz2018_tables import printed_tables
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_columns

Rows = list[dict[str, Any]]
Line = tuple[Cell | str, ...]
TITLES = {
    "accuracy": "Accuracy",
    "rho_adv": "rho_adv",
    "jacobian_clean": "Norm of the Jacobian at clean images",
    "jacobian_perturbed": "Norm of the Jacobian at DeepFool images",
}
STYLES: dict[str, Style] = {
    "accuracy": "percent",
    "rho_adv": "decimals",
    "jacobian_clean": "number",
    "jacobian_perturbed": "number",
}
_ACCURACY = (
    "rho_adv: how far DeepFool has to move an image to another class, as a share of the image's own length, mean "
    "over the test images; more is better. “paper” is what the paper prints."
)
_JACOBIAN = (
    "Mean Frobenius norm of the Jacobian of the logits, at the test images and at what DeepFool made of them for the "
    "same network. The printed norms (0.14 without a defence) are in another unit than the logits', probably per "
    "entry or of the softmax: only ratios can be compared, so they stand beside."
)
_ORDERINGS = (
    "Does the order of two networks that the paper prints come back? Difference of the network it puts above minus "
    "the one below, paired over images. “holds”: the 95 % interval is above 0; “does not hold”: below. Shown are "
    "neighbours in the printed order and whatever came out the other way; all pairs are in tables.json. With so many "
    "pairs a few intervals miss by chance."
)
_SPREAD = "Image by image, of the measured test images: shares of the perturbations, and norms on a log axis."


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page."""
    measured, found = task.tables, io.result(task.tables).json("tables.json")
    entries = [
        (part, f"{label}, {what}")
        for label, *parts in zip(measured.labels, measured.evaluations, measured.boundaries, measured.networks)
        for part, what in zip(parts, ("accuracy", "boundaries and Jacobian", "training"))
    ]
    keys = {part: digest(part)[:12] for part, _ in entries}
    accuracies, boundaries = (
        {label: keys[part] for label, part in zip(measured.labels, parts)}
        for parts in (measured.evaluations, measured.boundaries)
    )
    rows, choices = found["rows"], tuple(zip(task.choices[::2], task.choices[1::2]))
    on_mnist = name_of(measured.boundaries[0].data) == "mnist"
    warning = () if on_mnist else ("“paper”: MNIST, not these data, so it is no yardstick.",)
    return Report(
        title="Jacobian regularisation against DeepFool",
        subtitle="Jakubovitz & Giryes 2018: do networks whose Jacobian is kept small have boundaries farther away? "
        f"Tables 1 to 4. Scale: {found['scale']}.",
        verdict=(*warning, *found["readings"]),
        claims=tuple(Claim(**claim) for claim in found["claims"]),
        sections=(
            Section("Accuracy and robustness", _ACCURACY, (_robustness(rows, accuracies, boundaries, warning),)),
            Section("How steep the networks are", _JACOBIAN, (_norms(rows, boundaries, warning),)),
            *_ordered(found["orderings"], boundaries, accuracies),
            Section("Spread over images", _SPREAD, (_boxes(io, measured, boundaries),)),
            Section("CIFAR-10", "What the paper prints of its second data set; not measured here.", (_cifar(),)),
            Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
        ),
        settings=tuple(settings_of(part, io.result(part), keys[part], title) for part, title in entries),
    )


def _cell(row: dict[str, Any], measure: str, key: str, style: Style = "decimals") -> Cell:
    own = row.get(measure) or dict.fromkeys(("value", "low", "high"))
    return Cell(own["value"], own["low"], own["high"], row["printed"].get(measure), key, style)


def _robustness(rows: Rows, accuracies: dict[str, str], boundaries: dict[str, str], notes: tuple[str, ...]) -> Table:
    lines: list[Line] = []
    for row in rows:
        label = row["network"]
        lines.append(
            (
                label,
                _cell(row, "accuracy", accuracies[label], "percent"),
                _cell(row, "rho_adv", boundaries[label]),
                Cell(row["unreached"], settings=boundaries[label]),
            )
        )
    first = rows[0]
    return Table(
        f"Tables 2 and 3: accuracy on {first['images']:,} test images, rho_adv on the first {first['measured']:,} "
        "(95 % intervals)",
        ("network", "accuracy", "rho_adv", "images that found no boundary"),
        tuple(lines),
        (*notes, *_lost(first)),
    )


def _lost(row: dict[str, Any]) -> tuple[str, ...]:
    said = tuple(printed_tables()["notes"][table] + "." for table in ("Table 2", "Table 3"))
    black = (f"{row['black']} images are black all over and have no rho_adv.",) if row["black"] else ()
    return (*said, *black)


def _norms(rows: Rows, keys: dict[str, str], notes: tuple[str, ...]) -> Table:
    columns = {
        "jacobian_clean": "clean",
        "jacobian_perturbed": "perturbed",
        "perturbed_over_clean": "perturbed / clean",
        "jacobian_clean_over_undefended": "clean / undefended",
        "jacobian_perturbed_over_undefended": "perturbed / undefended",
    }
    lines = tuple(
        (
            row["network"],
            *(_cell(row, name, keys[row["network"]], STYLES.get(name, "decimals")) for name in columns),
        )
        for row in rows
    )
    caption = f"Table 1: mean norm of the Jacobian, first {rows[0]['measured']:,} test images (95 % intervals)"
    return Table(caption, ("network", *columns.values()), lines, (*notes, printed_tables()["notes"]["Table 1"] + "."))


def _ordered(pairs: Rows, boundaries: dict[str, str], accuracies: dict[str, str]) -> tuple[Section, ...]:
    tables = []
    for measure, title in TITLES.items():
        own = [pair for pair in pairs if pair["measure"] == measure]
        shown = [pair for pair in own if pair["neighbours"] or pair["verdict"] == "does not hold"]
        keys = accuracies if measure == "accuracy" else boundaries
        lines: list[Line] = []
        for pair in shown:
            style: Style = STYLES[measure]
            lines.append(
                (
                    pair["above"],
                    pair["below"],
                    Cell(pair["value"], pair["low"], pair["high"], pair["printed"], keys[pair["above"]], style),
                    pair["verdict"],
                )
            )
        if lines:
            header = ("the paper puts", "above", "difference", "here")
            tables.append(Table(f"{title}: {len(shown)} of {len(own)} pairs", header, tuple(lines)))
    return (Section("Orderings of the paper", _ORDERINGS, tuple(tables)),) if tables else ()


def _boxes(io: Io, measured: Any, keys: dict[str, str]) -> BoxFigure:
    stored = {
        label: read_columns(io.result(part).folder / "boundaries.parquet")
        for label, part in zip(measured.labels, measured.boundaries)
    }
    panels = tuple(
        BoxPanel(
            title,
            tuple(Box(label, tuple(found[name].tolist()), settings=keys[label]) for label, found in stored.items()),
            value,
            log=name != "share",
        )
        for name, title, value in (
            ("share", "Length of DeepFool's perturbation over that of the image", ""),
            ("jacobian_clean", TITLES["jacobian_clean"], "Frobenius norm"),
            ("jacobian_perturbed", TITLES["jacobian_perturbed"], "Frobenius norm"),
        )
    )
    return BoxFigure("Distances and Jacobians of all networks", panels)


def _cifar() -> Table:
    tables = printed_tables()
    lines: tuple[Line, ...] = tuple(
        (label, Cell(None, printed=values["accuracy"]), Cell(None, printed=values["rho_adv"], style="number"))
        for label, values in tables["Table 4"].items()
    )
    return Table("Table 4, as printed", ("network", "accuracy", "rho_adv"), lines, (tables["notes"]["Table 4"] + ".",))
