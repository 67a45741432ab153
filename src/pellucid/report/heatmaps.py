"""Heat maps as a file of their own; on the page they are tables, so that every cell can be a link."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.report.canvas import GREY
from pellucid.report.content import Cell, Heatmap, HeatmapFigure
from pellucid.report.looks import shade
from pellucid.report.numbers import missing, written

_NOTHING = ("#f1f2f4", GREY)
ACROSS = 2


def cell_looks(cell: Cell, heatmap: Heatmap) -> tuple[str, str]:
    """Return background and ink of a cell; grey where there is no number."""
    if missing(cell.value) or isinstance(cell.value, str) or cell.value is None:
        return _NOTHING
    return shade(cell.value, heatmap.lowest, heatmap.highest)


def whole_figure(block: HeatmapFigure) -> Figure:
    """Draw the heat maps side by side."""
    wide = max((_words(heatmap) + 0.95 * len(heatmap.columns) for heatmap in block.heatmaps), default=3.0)
    tall = max((1.1 + 0.62 * len(heatmap.rows) for heatmap in block.heatmaps), default=1.0)
    across = min(ACROSS, max(len(block.heatmaps), 1))
    down = -(-max(len(block.heatmaps), 1) // across)
    figure = Figure(figsize=(wide * across, tall * down), layout="constrained")
    for place, heatmap in enumerate(block.heatmaps):
        _draw(figure.add_subplot(down, across, place + 1), heatmap)
    return figure


def _words(heatmap: Heatmap) -> float:
    """Return the inches that the names of the rows and their title take."""
    return 0.6 + 0.08 * max((len(name) for name in heatmap.rows), default=0)


def _draw(axes: Axes, heatmap: Heatmap) -> None:
    for i, row in enumerate(heatmap.values):
        for j, cell in enumerate(row):
            background, ink = cell_looks(cell, heatmap)
            axes.fill_between([j, j + 1], i, i + 1, color=background, linewidth=0)
            axes.text(j + 0.5, i + 0.5, _lines(cell), ha="center", va="center", color=ink, fontsize=7.5)
    axes.set_xlim(0, max(len(heatmap.columns), 1))
    axes.set_ylim(max(len(heatmap.rows), 1), 0)
    axes.set_xticks([j + 0.5 for j in range(len(heatmap.columns))], heatmap.columns, rotation=30, ha="right")
    axes.set_yticks([i + 0.5 for i in range(len(heatmap.rows))], heatmap.rows)
    axes.tick_params(length=0)
    axes.set_title(heatmap.caption, loc="left")
    axes.set_xlabel(heatmap.column_title)
    axes.set_ylabel(heatmap.row_title)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _lines(cell: Cell) -> str:
    said = written(cell)
    lines = (said.value, said.interval, said.printed and f"paper {said.printed}")
    return "\n".join(line for line in lines if line)
