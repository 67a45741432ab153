"""A report as one HTML page that needs nothing else: no network, no script, no second file."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pellucid.report import legend, numbers, pictures
from pellucid.report.content import (
    Block,
    BoxFigure,
    CurveFigure,
    Gallery,
    HeatmapFigure,
    Report,
    Settings,
    Table,
)
from pellucid.report.curves import columns
from pellucid.report.figures import panel_svgs
from pellucid.report.heatmaps import cell_looks
from pellucid.report.tables import box_table, panel_table

_KINDS = {
    Table: "table",
    CurveFigure: "curves",
    HeatmapFigure: "heatmaps",
    BoxFigure: "boxes",
    Gallery: "gallery",
}


def render(report: Report) -> str:
    """Return the report as a page; the same report gives the same bytes.

    A key of settings that the report does not hold is shown without a link.
    """
    count: Counter[str] = Counter()
    sections = [
        {"section": section, "views": [_view(block, count) for block in section.blocks]} for section in report.sections
    ]
    template = _environment().get_template("report.html")
    verdicts = Counter(claim.verdict for claim in report.claims)
    return template.render(report=report, sections=sections, verdicts=verdicts, link=_links(report.settings))


def _view(block: Block, count: Counter[str]) -> dict[str, Any]:
    """Number a block and add what its template needs beside the block itself."""
    kind = _KINDS[type(block)]
    word = "Table" if kind == "table" else "Figure"
    count[word] += 1
    view: dict[str, Any] = {"kind": kind, "block": block, "number": f"{word}\u00a0{count[word]}"}
    if isinstance(block, CurveFigure | BoxFigure):
        view["svgs"] = [Markup(text) for text in panel_svgs(block, f"f{count[word]}")]
    if isinstance(block, CurveFigure):
        view |= {
            "legend": legend.entries(block),
            "printed": legend.has_printed(block),
            "bands": legend.has_bands(block),
            "columns": columns(block),
        }
        view["paper_swatch"] = legend.swatch("#5b6169", "o", hollow=True)
        view["tables"] = [panel_table(panel) for panel in block.panels]
    if isinstance(block, BoxFigure):
        view["tables"] = [box_table(panel) for panel in block.panels]
        floors = sorted({panel.floor for panel in block.panels if panel.log})
        view["floors"] = [numbers.power_of_ten(floor) for floor in floors]
    return view


def _links(settings: tuple[Settings, ...]) -> Callable[[str | None], tuple[str, str] | None]:
    """Return the way from a key to (anchor, title); None where the report has no such settings."""
    known = {entry.key: (f"settings-{place}", entry.title) for place, entry in enumerate(settings, 1)}
    return lambda key: None if key is None else known.get(key)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pellucid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "missing": numbers.missing,
        "written": numbers.written,
        "data_uri": pictures.data_uri,
        "spoken": pictures.spoken,
        "numeric": numbers.numeric,
        "description": pictures.description,
        "cell_looks": cell_looks,
    }
    environment.globals["css"] = Markup(PackageLoader("pellucid.report").get_source(environment, "report.css")[0])
    return environment
