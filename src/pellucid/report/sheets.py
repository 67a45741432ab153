"""A gallery as one picture: the contact sheet for documents that cannot hold a page."""

import io
from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pellucid.report.canvas import GREY, drawing, png
from pellucid.report.content import Gallery, GalleryRow, Picture
from pellucid.report.pictures import lines, pixels

SIZE = 1.25  # inches a picture
_GAP, _LINE, _LEFT = 0.14, 0.125, 1.35  # inches: between pictures, a line of text, the titles of rows
_LONGEST = 44  # characters of a line
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
    sheet = figure.add_axes((0, 0, 1, 1))  # one for all, in inches from the top left: many axes take long to draw
    sheet.set_axis_off()
    for place, title in enumerate(titles):
        sheet.text(_middle(place), top - 0.06, title, ha="center", va="bottom", fontsize=8)
    if not block.rows:
        sheet.text(width / 2, height / 2, "no pictures", ha="center", va="center", color=GREY)
    for row, tall in zip(block.rows, heights):
        sheet.text(_LEFT - 0.1, top + SIZE / 2, _owner(row), ha="right", va="center", fontsize=8)
        for place, picture in enumerate(row.pictures):
            if picture is None:
                sheet.text(_middle(place), top + SIZE / 2, "missing", ha="center", va="center", color=GREY)
            else:
                _draw(sheet, picture, place, top)
        top += tall
    sheet.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def _draw(sheet: Axes, picture: Picture, place: int, top: float) -> None:
    shown = pixels(picture)
    high, wide = (SIZE * side / max(shown.shape[:2]) for side in shown.shape[:2])
    left, upper = _middle(place) - wide / 2, top + (SIZE - high) / 2
    box = (left, left + wide, upper + high, upper)
    sheet.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=box)
    sheet.text(_middle(place), top + SIZE + 0.04, _said(picture), ha="center", va="top", fontsize=7)


def _middle(place: int) -> float:
    return _LEFT + place * (SIZE + _GAP) + SIZE / 2


def _height(row: GalleryRow) -> float:
    said = max([_said(picture).count("\n") + 1 for picture in row.pictures if picture is not None], default=1)
    return max(SIZE + 0.15 + _LINE * said, 0.1 + 1.15 * _LINE * (_owner(row).count("\n") + 1))


def _said(picture: Picture) -> str:
    return "\n".join(fill(_short(line), 24) for line in lines(picture))


def _short(line: str) -> str:
    """Return a line with its name shortened, for some are very long, and its number whole."""
    name, dot, number = line.rpartition(" · ")
    kept = dot + number if len(number) < _LONGEST / 2 else ""
    name = line.removesuffix(kept)
    return name + kept if len(line) <= _LONGEST else f"{name[: _LONGEST - len(kept) - 1].rstrip()}…{kept}"


def _owner(row: GalleryRow) -> str:
    return "\n".join(fill(part, 20) for part in (row.title, row.note) if part)
