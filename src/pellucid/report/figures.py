"""From a block to its drawing: SVG panels for the page, one PNG for documents."""

from matplotlib.figure import Figure

from pellucid.errors import InputError
from pellucid.report import boxes, curves, heatmaps, sheets
from pellucid.report.canvas import drawing, png, svg
from pellucid.report.content import BoxFigure, CurveFigure, Gallery, Heatmap, HeatmapFigure
from pellucid.report.looks import styles

Drawable = CurveFigure | HeatmapFigure | BoxFigure | Gallery


def to_png(block: Drawable, dpi: int = 150) -> bytes:
    """Return a figure, or a gallery as a contact sheet, as PNG bytes; InputError for anything else."""
    with drawing():
        return png(_whole(block), dpi)


def to_svg(block: Drawable, prefix: str = "figure") -> str:
    """Return the whole figure as one <svg> element to stand inside a page; its ids begin with `prefix`."""
    with drawing():
        return svg(_whole(block), prefix, block.caption)


def panel_svgs(block: CurveFigure | BoxFigure, prefix: str) -> list[str]:
    """Return one <svg> element a panel, so that a page can set them as its width allows."""
    with drawing():
        if isinstance(block, BoxFigure):
            span = boxes.shared_range(block)
            drawn = [(boxes.panel_figure(panel, span), panel.title) for panel in block.panels]
        else:
            looks = styles(curve for panel in block.panels for curve in panel.curves)
            drawn = [(curves.panel_figure(panel, looks, curves.columns(block)), panel.title) for panel in block.panels]
        return [
            svg(figure, f"{prefix}-{place}", f"{block.caption}: {title}") for place, (figure, title) in enumerate(drawn)
        ]


def _whole(block: Drawable | Heatmap) -> Figure:
    match block:
        case CurveFigure():
            return curves.whole_figure(block)
        case HeatmapFigure():
            return heatmaps.whole_figure(block)
        case BoxFigure():
            return boxes.whole_figure(block)
        case Gallery():
            return sheets.whole_figure(block)
    raise InputError(f"a {type(block).__name__} cannot be drawn as a figure")
