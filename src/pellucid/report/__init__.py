"""Rendering: numbers in, a page or a figure out; knows no files, no tasks and no networks."""

from pellucid.report.content import (
    Block,
    Box,
    BoxFigure,
    BoxPanel,
    Cell,
    Claim,
    Curve,
    CurveFigure,
    Gallery,
    GalleryRow,
    Heatmap,
    HeatmapFigure,
    Panel,
    Picture,
    Report,
    Section,
    Settings,
    Table,
)
from pellucid.report.markdown import to_markdown

__all__ = [
    "Block",
    "Box",
    "BoxFigure",
    "BoxPanel",
    "Cell",
    "Claim",
    "Curve",
    "CurveFigure",
    "Gallery",
    "GalleryRow",
    "Heatmap",
    "HeatmapFigure",
    "Panel",
    "Picture",
    "Report",
    "Section",
    "Settings",
    "Table",
    "render",
    "to_markdown",
    "to_png",
]


def render(report: Report) -> str:
    """Return the report as one self-contained HTML page; the same report gives the same bytes."""
    from pellucid.report.page import render as draw  # matplotlib takes long to import; only who draws pays

    return draw(report)


def to_png(block: CurveFigure | HeatmapFigure | BoxFigure | Gallery, dpi: int = 150) -> bytes:
    """Return a figure, or a gallery as a contact sheet, as the bytes of a PNG."""
    from pellucid.report.figures import to_png as draw

    return draw(block, dpi)
