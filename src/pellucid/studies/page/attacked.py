"""The page of a study that measures networks under attacks, from its tables and per-example results."""

from typing import Any, TypeAlias

from pellucid.report import (
    Cell,
    Curve,
    CurveFigure,
    Gallery,
    GalleryRow,
    Panel,
    Report,
    Section,
    Table,
)
from pellucid.report.pairs import STATES, image_pictures
from pellucid.spec import digest, fraction
from pellucid.studies.attacked_tables import by_measurement
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.io import Io

Groups: TypeAlias = dict[tuple[str, str], list[dict[str, Any]]]
Keys: TypeAlias = dict[tuple[str, str], str]
Row: TypeAlias = tuple[Cell | str, ...]


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page, from the task that makes it and the results that it names."""

    found = io.result(task.tables).json("tables.json")
    measured: Any = task.tables
    keys = {
        (network, attack): digest(evaluation)[:12]
        for network, attack, evaluation in zip(measured.networks, measured.attacks, measured.evaluations)
    }
    groups = by_measurement(found["rows"])
    curves = any(len(rows) > 2 for rows in groups.values())
    warned, leaves = _warnings(groups), any(evaluation.stop_when_fooled for evaluation in measured.evaluations)
    choices = tuple(zip(task.choices[::2], task.choices[1::2]))
    sections = [
        Section("Accuracy under attack", blocks=(*((_curves(groups, keys),) if curves else ()), _table(groups, keys))),
        *([Section("What it looks like", blocks=(_gallery(task, io),))] if task.pictures else []),
        Section("What it cost", _COST + (_LEAVES if leaves else _STAYS), (_costs(groups, keys),)),
        *([Section("Warnings", _WARNINGS, warned)] if warned else []),
        Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
    ]
    return Report(
        title=task.heading,
        subtitle=f"{task.about} Scale: {found['scale']}.",
        verdict=(*found["readings"], *((_UNWARNED,) if _checked(groups) and not warned else ())),
        sections=tuple(sections),
        settings=tuple(
            settings_of(evaluation, io.result(evaluation), keys[network, attack], f"{network}, {attack}")
            for network, attack, evaluation in zip(measured.networks, measured.attacks, measured.evaluations)
        ),
    )


_COST = (
    "Images passed through the network by the attack, per image of the test, at all eps together: forward and "
    "backward. "
)
_LEAVES = "An image leaves once it is fooled, so a weak network is cheap to attack."
_STAYS = "Every image goes through all steps, and the last iterate counts."
_UNWARNED = "No check of AutoAttack gave a warning: gradients are there and finite, and no query attack beat them."
_WARNINGS = "Signs that an accuracy is too good to be true, found by AutoAttack's checks of the network."


def _checked(groups: Groups) -> bool:
    return any(attack == "AutoAttack" for _, attack in groups)


def _cell(row: dict[str, Any], key: str) -> Cell:
    return Cell(row["value"], row["low"], row["high"], row["printed"], key)


def _table(groups: Groups, keys: Keys) -> Table:
    grid = [row["epsilon"] for row in next(iter(groups.values()))]
    if all([row["epsilon"] for row in rows] == grid for rows in groups.values()):
        header = ("network", "attack", "images", *("clean" if eps == 0 else f"eps {fraction(eps)}" for eps in grid))
        wide: list[Row] = [
            (network, attack, str(rows[0]["images"]), *(_cell(row, keys[network, attack]) for row in rows))
            for (network, attack), rows in groups.items()
        ]
        return Table("Accuracy (95 % intervals)", header, tuple(wide))
    header = ("attack", "eps", "accuracy", "mean linf", "mean l2", "images")
    long: list[Row] = [
        (
            attack,
            "" if row["epsilon"] is None else fraction(row["epsilon"]),
            _cell(row, keys[network, attack]),
            f"{row['linf']:.3f}",
            f"{row['l2']:.2f}",
            str(row["images"]),
        )
        for (network, attack), rows in groups.items()
        for row in rows
    ]
    return Table("Accuracy (95 % intervals), and how far the images moved in units of [0, 1]", header, tuple(long))


def _curves(groups: Groups, keys: Keys) -> CurveFigure:
    panels = []
    for name in dict.fromkeys(network for network, _ in groups):
        lines = tuple(
            Curve(
                attack,
                tuple(row["epsilon"] for row in rows),
                tuple(row["value"] for row in rows),
                tuple(row["low"] for row in rows),
                tuple(row["high"] for row in rows),
                settings=keys[network, attack],
            )
            for (network, attack), rows in groups.items()
            if network == name
        )
        panels.append(Panel(name, lines, "eps", "accuracy"))
    return CurveFigure("Accuracy under attacks of growing strength", tuple(panels))


def _costs(groups: Groups, keys: Keys) -> Table:
    rows: list[Row] = []
    for (network, attack), found in groups.items():
        n = found[0]["images"]
        cost = [sum(row[way] for row in found) / n for way in ("forward", "backward")]
        cells = (Cell(value, settings=keys[network, attack], style="number") for value in cost)
        rows.append((network, attack, *cells))
    return Table("Passes per image", ("network", "attack", "forward", "backward"), tuple(rows))


def _warnings(groups: Groups) -> tuple[Table, ...]:
    rows = tuple(
        (network, attack, said["check"], f"{said['images']} of {said['of']}", said["meaning"])
        for (network, attack), found in groups.items()
        for row in found
        for said in row["warnings"]
    )
    return (Table("Warnings", ("network", "attack", "check", "images", "what it means"), rows),) if rows else ()


def _gallery(task: Any, io: Io) -> Gallery:
    rows = []
    for attack, shown in zip(task.tables.attacks, task.pictures):
        maps = io.result(shown).tensors("maps.safetensors")
        classes = io.result(shown.network).json("config.json")["classes"]
        pictures = [
            picture for image in range(len(maps["labels"])) for picture in image_pictures(maps, image, classes, STATES)
        ]
        rows.append(GalleryRow(attack, tuple(pictures)))
    headings = tuple(picture.caption for picture in rows[0].pictures if picture is not None)
    return Gallery("The first test images under each attack", tuple(rows), headings)
