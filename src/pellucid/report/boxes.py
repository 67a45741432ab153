"""Distributions: quartiles, 5th to 95th percentile, mean."""

from math import nan
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pellucid.report.canvas import GREY, INK
from pellucid.report.content import Box, BoxFigure, BoxPanel
from pellucid.report.log_axis import make_log
from pellucid.report.looks import COLOURS

WIDTH = 4.6

Range = tuple[float, float] | None


class Summary(NamedTuple):
    """What is drawn of a distribution, and of how many values; NaN throughout where there are none."""

    values: int
    at_floor: int
    p5: float
    q1: float
    median: float
    q3: float
    p95: float
    mean: float


def summarise(box: Box, panel: BoxPanel) -> Summary:
    """Return the summary of the finite values; on a log axis values below the floor count as the floor."""
    values = np.asarray(box.values, float)
    values = values[np.isfinite(values)]
    below = int((values <= panel.floor).sum()) if panel.log else 0
    values = np.maximum(values, panel.floor) if panel.log else values
    if not len(values):
        return Summary(0, 0, nan, nan, nan, nan, nan, nan)
    points = np.percentile(values, [5, 25, 50, 75, 95])
    p5, q1, median, q3, p95 = (float(point) for point in points)
    return Summary(len(values), below, p5, q1, median, q3, p95, float(values.mean()))


def shared_range(block: BoxFigure) -> Range:
    """Return the one range of all panels that measure the same thing, so that they can be compared by eye."""
    if len({(panel.value_label, panel.log, panel.floor) for panel in block.panels}) != 1:
        return None
    found = [summarise(box, panel) for panel in block.panels for box in panel.boxes if panel.value_label]
    places = [place for one in found if one.values for place in (one.p5, one.p95, one.mean)]
    if not places or min(places) == max(places):
        return None
    low, high = min(places), max(places)
    if block.panels[0].log:
        room = (high / low) ** 0.05
        return low / room, high * room
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def panel_figure(panel: BoxPanel, span: Range = None) -> Figure:
    """Draw one panel alone."""
    figure = Figure(figsize=(WIDTH, _height(panel)), layout="constrained")
    draw_panel(figure.add_subplot(), panel, span)
    return figure


def whole_figure(block: BoxFigure) -> Figure:
    """Draw the panels below each other, for a file of its own."""
    heights = [_height(panel) for panel in block.panels] or [1.0]
    figure = Figure(figsize=(1.6 * WIDTH, sum(heights)), layout="constrained")
    span = shared_range(block)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for place, panel in enumerate(block.panels):
        draw_panel(figure.add_subplot(grid[place]), panel, span)
    return figure


def draw_panel(axes: Axes, panel: BoxPanel, span: Range = None) -> None:
    """Draw the distributions from top to bottom, in the order given."""
    for place, box in enumerate(panel.boxes):
        _draw_box(axes, place, summarise(box, panel), box.colour or COLOURS[place % len(COLOURS)])
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.value_label)
    axes.set_yticks(range(len(panel.boxes)), [box.label for box in panel.boxes])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(max(len(panel.boxes), 1) - 0.4, -0.6)
    axes.grid(True, axis="x")
    if span is not None:
        axes.set_xlim(*span)
    if panel.log:
        make_log(axes, "x")


def _draw_box(axes: Axes, place: int, found: Summary, colour: str) -> None:
    if not found.values:
        axes.text(0.5, place, "missing", transform=axes.get_yaxis_transform(), ha="center", va="center", color=GREY)
        return
    parts = {"med": found.median, "q1": found.q1, "q3": found.q3, "whislo": found.p5, "whishi": found.p95}
    axes.bxp(
        [parts | {"mean": found.mean}],
        positions=[place],
        widths=0.55,
        orientation="horizontal",
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
        medianprops={"color": INK, "linewidth": 1.6},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": INK, "markersize": 4.5},
    )


def _height(panel: BoxPanel) -> float:
    return 0.85 + 0.34 * max(len(panel.boxes), 1)
