"""How far maps before and after an attack agree."""

from typing import Any

from pellucid.report import Cell, Section, Table
from pellucid.studies.ross2018_page.source import Source


def section(source: Source) -> Section:
    """Return the section."""
    rows = tuple(_row(source, row) for row in source.numbers["stability"])
    header = ("network", "map", "tau, all images", "tau, prediction kept", "images", "of them kept")
    return Section(
        "How stable the maps are under attack",
        "Tau between the map of an image before and after PGD, mean over images: 1 orders all pixels "
        "alike, 0 has nothing in common. “Prediction kept” leaves out images whose predicted class "
        "changed, as Boopathy et al. do; how many are left stands beside it, since a mean over few says "
        "little. The paper has no such numbers.",
        (Table("Rank correlation of maps before and after the attack", header, rows),),
    )


def _row(source: Source, row: dict[str, Any]) -> tuple[Cell | str, ...]:
    key = source.cite(source.explained[row["network"]])

    def tau(found: dict[str, Any]) -> Cell:
        return Cell(found["value"], found["low"], found["high"], settings=key, style="decimals")

    counts = (Cell(count, settings=key) for count in (row["images"], row["kept"]["n"]))
    return row["network"], row["interpreter"], tau(row["all"]), tau(row["kept"]), *counts
