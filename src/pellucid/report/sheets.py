"""A gallery as one picture: the contact sheet for documents that cannot hold a page."""

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.report.canvas import GREY
from pellucid.report.content import Gallery, Picture
from pellucid.report.pictures import lines, pixels

SIZE = 1.25  # inches a picture


def whole_figure(block: Gallery) -> Figure:
    """Draw all pictures in their grid, enlarged without smoothing."""
    across = max([len(row.pictures) for row in block.rows] + [len(block.column_titles), 1])
    down = max(len(block.rows), 1)
    figure = Figure(figsize=(SIZE * across + 1.2, (SIZE + 0.45) * down + 0.3), layout="constrained")
    if not block.rows:
        figure.text(0.5, 0.5, "no pictures", ha="center", va="center", color=GREY)
    for i, row in enumerate(block.rows):
        for j in range(across):
            axes = figure.add_subplot(down, across, i * across + j + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            picture = row.pictures[j] if j < len(row.pictures) else None
            axes.spines[:].set_visible(False)
            if i == 0 and j < len(block.column_titles):
                axes.set_title(fill(block.column_titles[j], 18), fontsize=8, fontweight="normal")
            if j == 0:
                axes.set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=8)
            if picture is not None:
                _place(axes, picture)
            elif j < len(row.pictures):
                axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", color=GREY)
    return figure


def _place(axes: Axes, picture: Picture) -> None:
    axes.imshow(pixels(picture), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xlabel("\n".join(lines(picture)), fontsize=7)
