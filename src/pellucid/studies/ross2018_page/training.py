"""How training went, what it took, and which lambda was selected."""

from typing import Any

from pellucid.report import Cell, Curve, CurveFigure, Panel, Section, Table
from pellucid.spec import fraction
from pellucid.studies.ross2018_page.source import Source, share

WATCHED = 512  # validation images that training is watched on


def section(source: Source) -> Section:
    """Return the section."""
    return Section(
        "Training",
        f"Measured on the first {WATCHED} validation images, or all where there are fewer, in eval mode (the "
        "quantities of the paper's Figures 7 and 8).",
        (_curves(source), _selection(source), _costs(source)),
    )


def trained(source: Source) -> dict[str, Any]:
    """Return every network that was trained, by label."""
    return {label: task.network for label, task in source.explained.items()}


def _curves(source: Source) -> CurveFigure:
    accuracy = tuple(_accuracy(source, label) for label in source.labels)
    gradient = tuple(_gradient(source, label) for label in source.labels)
    return CurveFigure(
        "Validation accuracy and mean squared input-gradient norm during training",
        (
            Panel("accuracy", accuracy, "step", "accuracy"),
            Panel("squared input-gradient norm", gradient, "step", "mean", log_y=True, y_range=None),
        ),
    )


def _accuracy(source: Source, label: str) -> Curve:
    task = source.task.networks[source.labels.index(label)]
    images = min(WATCHED, source.result(task).meta["data"]["validation"]["images"])
    history, (colour, marker) = source.numbers["history"][label], source.looks(label)
    cells = [share(row["validation_accuracy"], images, source.cite(task)) for row in history]
    return Curve(
        label,
        tuple(row["step"] for row in history),
        tuple(row["validation_accuracy"] for row in history),
        tuple(cell.low for cell in cells),
        tuple(cell.high for cell in cells),
        colour=colour,
        marker=marker,
        settings=source.cite(task),
    )


def _gradient(source: Source, label: str) -> Curve:
    task = source.task.networks[source.labels.index(label)]
    history, (colour, marker) = source.numbers["history"][label], source.looks(label)
    x, y = (tuple(row[key] for row in history) for key in ("step", "validation_squared_gradient"))
    return Curve(label, x, y, colour=colour, marker=marker, settings=source.cite(task))


def _selection(source: Source) -> Table:
    task = source.task.selection
    images, key = source.result(task).meta["data"][task.part]["images"], source.cite(task)
    rows = tuple(
        (
            label,
            *(share(value, images, key) for value in values),
            "selected" if label == source.selected else "",
        )
        for label, values in source.numbers["selection"].items()
    )
    return Table(
        "Selection of lambda: accuracy on validation images, FGSM made for the normal network",
        ("network", *(f"eps {fraction(eps)}" for eps in task.epsilons), ""),
        rows,
        (source.numbers["selected_by"],),
    )


def _costs(source: Source) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for label, task in trained(source).items():
        meta, key = source.result(task).meta, source.cite(task)
        passes = meta["passes"]
        counts = (Cell(n, settings=key) for n in (task.steps, passes["forward"], passes["backward"]))
        rows.append((label, Cell(meta["wall_seconds"], settings=key, style="number"), *counts))
    return Table(
        "What training took",
        ("network", "seconds", "steps", "images forward", "images backward"),
        tuple(rows),
        ("Wall time on the machine named above, other work beside it included.",),
    )
