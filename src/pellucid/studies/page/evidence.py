"""The content of the page on where maps see the evidence, from its tables and stored maps."""

from typing import Any

from pellucid.report import Cell, Gallery, GalleryRow, Heatmap, HeatmapFigure, Picture, Report, Section, Table
from pellucid.report.pairs import image_pictures, map_pictures
from pellucid.spec import digest
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.io import Io

Rows = list[dict[str, Any]]
MEASURES = {
    "mass": "mass on the letter",
    "pointing": "largest value on the letter",
    "precision": "area under precision-recall",
}
_SCORES = (
    "The letter's own pixels are the evidence. Mass: the share of the map's magnitudes on them. Pointing game: how "
    "often the largest value is on them. Precision-recall: how well a threshold on the map finds them. For all three "
    "more is better, and a map that knows nothing scores the letter's share of the image, {chance:.3f}. The first row "
    "asks no network at all: it is how far each pixel is from the mean of the image."
)


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page."""
    found, measured = io.result(task.tables).json("tables.json"), task.tables
    entries = [(part, f"{label}, scores") for label, part in zip(measured.networks, measured.measured)]
    keys = {label: digest(part)[:12] for label, part in zip(measured.networks, measured.measured)}
    rows = [row | {"settings": keys[row["network"]]} for row in found["rows"]]
    choices = tuple(zip(task.choices[::2], task.choices[1::2]))
    return Report(
        title="Do maps point at the evidence?",
        subtitle="Every interpreter against the exact mask of the object, defence by defence. "
        f"Scale: {found['scale']}.",
        verdict=tuple(found["readings"]),
        sections=(
            Section("Networks", blocks=(_accuracies(found["accuracy"], keys),)),
            Section(
                "Scores",
                _SCORES.format(chance=found["chance"]),
                (
                    _overview(rows, measured.networks),
                    *(_table(rows, measured.networks, measure) for measure in MEASURES),
                ),
            ),
            Section(
                "What the maps look like",
                "The first test images. Each map is scaled by its own 99th percentile: red speaks for the true class, "
                "blue against it.",
                (_gallery(io, task),),
            ),
            Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
        ),
        settings=tuple(settings_of(part, io.result(part), digest(part)[:12], title) for part, title in entries),
    )


def _accuracies(rows: Rows, keys: dict[str, str]) -> Table:
    cells = tuple(
        (row["network"], Cell(row["value"], row["low"], row["high"], settings=keys[row["network"]]), str(row["images"]))
        for row in rows
    )
    return Table("Accuracy on the images that are explained (95 % intervals)", ("network", "accuracy", "images"), cells)


def _of(rows: Rows, interpreter: str, network: str) -> dict[str, Any]:
    return next(row for row in rows if (row["interpreter"], row["network"]) == (interpreter, network))


def _names(rows: Rows) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row["interpreter"] for row in rows))


def _cell(row: dict[str, Any], measure: str, interval: bool = True) -> Cell:
    value, low, high = (row[measure][key] for key in ("value", "low", "high"))
    ends = (low, high) if interval else (None, None)
    return Cell(value, ends[0], ends[1], settings=row["settings"], style="decimals")


def _overview(rows: Rows, networks: tuple[str, ...]) -> HeatmapFigure:
    names = _names(rows)
    maps = tuple(
        Heatmap(
            caption,
            names,
            networks,
            tuple(tuple(_cell(_of(rows, name, network), measure, False) for network in networks) for name in names),
            "map",
            "network",
        )
        for measure, caption in MEASURES.items()
    )
    return HeatmapFigure("How well each map finds the letter, all images", maps)


def _table(rows: Rows, networks: tuple[str, ...], measure: str) -> Table:
    header = ("map", *(f"{network}{part}" for network in networks for part in ("", ", right only")))
    lines = []
    for name in _names(rows):
        cells: list[Cell | str] = [name]
        for network in networks:
            row = _of(rows, name, network)
            cells += [_cell(row, measure), _cell(row, f"{measure}_right")]
        lines.append(tuple(cells))
    undefined = {name: max(_of(rows, name, network)["undefined"] for network in networks) for name in _names(rows)}
    notes = tuple(
        f"{name}: up to {count} of the images have an empty map, which has no mass and is left out of this measure."
        for name, count in undefined.items()
        if count
    )
    return Table(
        f"{MEASURES[measure].capitalize()}, 95 % intervals", header, tuple(lines), notes if measure == "mass" else ()
    )


def _gallery(io: Io, task: Any) -> Gallery:
    """Return one row a network and image: the image, the letter's mask, and every map."""
    rows = []
    for label, explained in zip(task.tables.networks, task.pictures):
        maps = io.result(explained).tensors("maps.safetensors")
        masks = explained.data.load(explained.part).masks
        classes = io.result(explained.network).json("config.json")["classes"]
        for place in range(len(maps["labels"])):
            image = image_pictures(maps, place, classes, ("clean",))[0]
            mask = Picture("letter", masks[place].double().numpy(), "image")
            drawn = map_pictures(maps, place, task.tables.interpreters, ("clean",))
            rows.append(GalleryRow(label, (image, mask, *drawn)))
    headings = ("image", "letter", *task.tables.interpreters)
    return Gallery("Maps of the true class", tuple(rows), headings)
