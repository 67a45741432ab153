"""A gallery as one picture: the contact sheet for documents that cannot hold a page."""

import io
from collections.abc import Sequence
from textwrap import fill, shorten

from matplotlib.figure import Figure
from PIL import Image

from pellucid.report.canvas import GREY, drawing, png
from pellucid.report.content import Gallery, GalleryRow, Picture
from pellucid.report.pictures import lines, pixels

SIZE = 1.25  # inches a picture
_GAP, _LINE, _LEFT = 0.14, 0.125, 1.35  # inches: between pictures, a line of text, the titles of rows
_TALLEST = 60_000  # pixels of a sheet; PNG readers refuse more than 65,535


def stacked(blocks: Sequence[Gallery], dpi: int = 150) -> bytes:
    """Return galleries one below the other as one PNG; a very tall one has fewer dots per inch."""
    with drawing():
        figures = [whole_figure(block) for block in blocks]
        dpi = max(20, min(dpi, int(_TALLEST / sum(figure.get_figheight() for figure in figures))))
        parts = [Image.open(io.BytesIO(png(figure, dpi))).convert("RGB") for figure in figures]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    return out.getvalue()


def whole_figure(block: Gallery) -> Figure:
    """Draw all pictures in their grid, enlarged without smoothing."""
    across = max([len(row.pictures) for row in block.rows] + [len(block.column_titles), 1])
    titles = [fill(title, 20) for title in block.column_titles]
    top = 0.15 + _LINE * max([title.count("\n") + 1 for title in titles], default=0)
    heights = [_height(row) for row in block.rows] or [SIZE]
    width, height = _LEFT + across * (SIZE + _GAP), top + sum(heights)
    figure = Figure(figsize=(width, height))
    for place, title in enumerate(titles):
        figure.text(*_at(place, top - 0.06, width, height), title, ha="center", va="bottom", fontsize=8)
    if not block.rows:
        figure.text(0.5, 0.5, "no pictures", ha="center", va="center", color=GREY)
    for row, tall in zip(block.rows, heights):
        middle = 1 - (top + SIZE / 2) / height
        figure.text((_LEFT - 0.1) / width, middle, _owner(row), ha="right", va="center", fontsize=8)
        for place, picture in enumerate(row.pictures):
            if picture is None:
                x, _ = _at(place, 0, width, height)
                figure.text(x, middle, "missing", ha="center", va="center", color=GREY)
            else:
                _place(figure, picture, place, top)
        top += tall
    return figure


def _place(figure: Figure, picture: Picture, place: int, top: float) -> None:
    width, height = figure.get_size_inches()
    box = ((_LEFT + place * (SIZE + _GAP)) / width, 1 - (top + SIZE) / height, SIZE / width, SIZE / height)
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.imshow(pixels(picture), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    figure.text(*_at(place, top + SIZE + 0.04, width, height), _said(picture), ha="center", va="top", fontsize=7)


def _at(place: int, down: float, width: float, height: float) -> tuple[float, float]:
    """Return the middle of a column, so many inches from the top, in shares of the figure."""
    return (_LEFT + place * (SIZE + _GAP) + SIZE / 2) / width, 1 - down / height


def _height(row: GalleryRow) -> float:
    said = max([_said(picture).count("\n") + 1 for picture in row.pictures if picture is not None], default=1)
    return max(SIZE + 0.15 + _LINE * said, 0.1 + 1.15 * _LINE * (_owner(row).count("\n") + 1))


def _said(picture: Picture) -> str:
    short = (shorten(line, 44, placeholder="…") for line in lines(picture))  # some classes have very long names
    return "\n".join(fill(line, 24) for line in short)


def _owner(row: GalleryRow) -> str:
    return "\n".join(fill(part, 20) for part in (row.title, row.note) if part)
