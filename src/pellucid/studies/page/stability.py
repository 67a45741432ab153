"""The content of the page on input gradients and on maps under attack, from its tables and stored maps."""

from typing import Any

from pellucid.report import Cell, Curve, CurveFigure, Gallery, GalleryRow, Panel, Picture, Report, Section, Table
from pellucid.report.pairs import image_pictures, map_pictures
from pellucid.spec import digest, fraction
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.io import Io

Rows = list[dict[str, Any]]
FAMILIES = (("GradCAM, the network of Ross & Doshi-Velez", False), ("CAM, the Small network of Boopathy et al.", True))
_GRADIENTS = (
    "Each map is the gradient of the sum of all log-probabilities, scaled by its own 99th percentile: brightening a "
    "red pixel makes the network less sure of its prediction, a blue one surer."
)
_STABILITY = (
    "Tau between the map of the true class before and after the attack: 1 keeps the order of all positions, 0 has "
    "nothing in common with it. Images whose predicted class changed are left out, as in the paper; how many are kept "
    "stands beside every tau, since a mean over few says little, and over none there is none."
)


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page."""
    found, measured = io.result(task.tables).json("tables.json"), task.tables
    entries = [
        (explained, f"{label}, AAI at eps {fraction(eps)}")
        for label, eps, explained in zip(measured.networks, measured.epsilons, measured.explained)
    ]
    entries += [(explained, f"{label}, input gradients") for label, explained in zip(task.labels, task.gradients)]
    keys = {explained: digest(explained)[:12] for explained, _ in entries}
    rows = [row | {"settings": keys[explained]} for row, explained in zip(found["rows"], measured.explained)]
    choices = tuple(zip(task.choices[::2], task.choices[1::2]))
    return Report(
        title="How gradients look and how stable maps are, defence by defence",
        subtitle="Input gradients after Ross & Doshi-Velez 2018, Figure 6; Kendall's tau under an attack on the map "
        f"after Boopathy et al. 2020, Table 3. Scale: {found['scale']}.",
        verdict=tuple(found["readings"]),
        sections=(
            Section("Input gradients", _GRADIENTS, (_panel(io, task, keys),)),
            Section("Maps under attack", _STABILITY, (_curves(rows), *_tables(rows))),
            Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
        ),
        settings=tuple(
            settings_of(explained, io.result(explained), keys[explained], title) for explained, title in entries
        ),
    )


def _panel(io: Io, task: Any, keys: dict[Any, str]) -> Gallery:
    """Return images above, and under them the gradients of each network in a row of its own."""
    rows: list[GalleryRow] = []
    for label, explained in zip(task.labels, task.gradients):
        maps = io.result(explained).tensors("maps.safetensors")
        classes = io.result(explained.network).json("config.json")["classes"]
        pairs = [_pair(maps, place, classes, keys[explained]) for place in range(len(maps["labels"]))]
        if not rows:
            rows.append(GalleryRow("image", tuple(image for image, _ in pairs)))
        rows.append(GalleryRow(label, tuple(gradient for _, gradient in pairs)))
    headings = tuple(picture.caption for picture in rows[0].pictures if picture is not None) if rows else ()
    return Gallery("Gradients of the certainty of each network, and what it takes the image for", tuple(rows), headings)


def _pair(maps: dict[str, Any], place: int, classes: list[str], key: str) -> tuple[Picture, Picture]:
    """Return an image, named by its class, and its gradient with what the network says."""
    said = image_pictures(maps, place, classes, ("clean",))[0]
    drawn = map_pictures(maps, place, ("gradient",), ("clean",))[0]
    image = Picture(f"class {classes[int(maps['labels'][place])]}", said.pixels)
    return image, Picture(image.caption, drawn.pixels, "signed", said.label, said.confidence, said.right, settings=key)


def _families(rows: Rows) -> list[tuple[str, dict[str, Rows]]]:
    """Return (title, rows by network) of each family of networks that was measured."""
    found = []
    for title, small in FAMILIES:
        own = [row for row in rows if row["network"].endswith("Small") == small]
        labels = dict.fromkeys(row["network"] for row in own)
        if labels:
            found.append((title, {label: [row for row in own if row["network"] == label] for label in labels}))
    return found


def _curves(rows: Rows) -> CurveFigure:
    panels = [
        Panel(title, tuple(_curve(label, own) for label, own in networks.items()), "eps", "tau", y_range=(-0.65, 1.0))
        for title, networks in _families(rows)
    ]
    return CurveFigure("Rank correlation of maps before and after AAI, prediction kept", tuple(panels))


def _curve(label: str, rows: Rows) -> Curve:
    columns = {key: tuple(row[key] for row in rows) for key in ("epsilon", "value", "low", "high", "printed")}
    printed = columns["printed"] if any(value is not None for value in columns["printed"]) else None
    key = rows[0]["settings"]
    return Curve(label, columns["epsilon"], columns["value"], columns["low"], columns["high"], printed, settings=key)


def _tables(rows: Rows) -> tuple[Table, ...]:
    grid = list(dict.fromkeys(row["epsilon"] for row in rows))
    header = ("network", *(part for eps in grid for part in (f"eps {fraction(eps)}", "kept")))
    return tuple(
        Table(
            f"{title}: tau under AAI with 95 % intervals, and images kept of {rows[0]['images']}",
            header,
            tuple((label, *(cell for row in own for cell in _cells(row))) for label, own in networks.items()),
        )
        for title, networks in _families(rows)
    )


def _cells(row: dict[str, Any]) -> tuple[Cell, Cell]:
    key = row["settings"]
    tau = Cell(row["value"], row["low"], row["high"], row["printed"], key, "decimals")
    return tau, Cell(row["kept"], settings=key)
