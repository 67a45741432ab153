"""Curves with intervals, and the paper's printed values beside them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from pellucid.report.canvas import GREY
from pellucid.report.content import Curve, CurveFigure, Number, Panel
from pellucid.report.log_axis import make_log
from pellucid.report.looks import styles
from pellucid.report.numbers import missing, power_of_ten

Looks = dict[str, tuple[str, str]]
WIDTH, HEIGHT = 3.4, 2.6
_FEW = 30  # curves with more points than this are drawn without markers
_LEVELS = 12  # a log axis with at most as many has a tick at each
_LETTERS = 36  # names of places that are longer together are tilted
_WIDE = 0.64  # of a digit, in the size of its font


def columns(block: CurveFigure) -> int:
    """Return how many panels stand side by side where there is room."""
    count = len(block.panels)
    return block.columns or {0: 1, 4: 2}.get(count, min(count, 3))


def panel_figure(panel: Panel, looks: Looks, across: int) -> Figure:
    """Draw one panel alone, small where many stand side by side so that its text stays legible."""
    size = {1: (4.8, 3.1), 2: (4.5, 3.0)}.get(across, (WIDTH, HEIGHT) if across == 3 else (2.8, 2.4))
    figure = Figure(figsize=size, layout="constrained")
    draw_panel(figure.add_subplot(), panel, looks)
    return figure


def whole_figure(block: CurveFigure) -> Figure:
    """Draw all panels with their legend below, for a file of its own."""
    looks = styles(curve for panel in block.panels for curve in panel.curves)
    across = columns(block)
    down = math.ceil(max(len(block.panels), 1) / across)
    figure = Figure(figsize=(WIDTH * across, HEIGHT * down + 0.5), layout="constrained")
    for place, panel in enumerate(block.panels):
        draw_panel(figure.add_subplot(down, across, place + 1), panel, looks)
    handles = [Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in looks.items()]
    if any(curve.printed for panel in block.panels for curve in panel.curves):
        paper: dict[str, Any] = {"color": GREY, "marker": "o", "markerfacecolor": "white"}
        handles.append(Line2D([], [], linestyle=(0, (3, 2)), linewidth=1.0, label="printed in the paper", **paper))
    if handles:
        _legend(figure, handles, 3 * across)
    return figure


def _legend(figure: Figure, handles: list[Line2D], most: int) -> None:
    """Draw the legend below in at most `most` columns, as many as there is room for; the figure grows by its rows."""
    width, height = figure.get_size_inches()
    for down in range(math.ceil(len(handles) / most), len(handles) + 1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / down))
        box = legend.get_window_extent()
        wide, tall = box.width / figure.dpi + 0.1, box.height / figure.dpi
        if wide <= width or down == len(handles):
            break
        legend.remove()
    figure.set_size_inches(max(width, wide), height + max(0.0, tall - 0.25))


def draw_panel(axes: Axes, panel: Panel, looks: Looks) -> None:
    """Draw lines with markers, bands for intervals, and hollow dashed lines for printed values."""
    for curve in panel.curves:
        _draw_curve(axes, curve, looks)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True)
    _scale(axes, panel)
    if not any(has_numbers(curve) for curve in panel.curves):
        axes.text(0.5, 0.5, "no numbers", transform=axes.transAxes, ha="center", va="center", color=GREY)


def has_numbers(curve: Curve) -> bool:
    """Return whether anything of the curve can be drawn."""
    return any(not missing(value) for value in (*curve.y, *(curve.printed or ())))


def _draw_curve(axes: Axes, curve: Curve, looks: Looks) -> None:
    colour, marker = looks[curve.label]
    x, y = np.asarray(curve.x, float), _array(curve.y)
    shape = marker if len(x) <= _FEW or not curve.joined else ""
    size = 3.0 if not curve.joined and len(x) > _FEW else None
    if curve.low is not None and curve.high is not None:
        low, high = _array(curve.low), _array(curve.high)
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        if np.isfinite(low + high + y).sum() == 1:  # a band of one point has no width
            reach = np.clip(np.nan_to_num([y - low, high - y]), 0, None)
            axes.errorbar(x, y, yerr=reach, color=colour, fmt="none", capsize=2, linewidth=1)
    axes.plot(x, y, color=colour, marker=shape, markersize=size, linestyle="-" if curve.joined else "none")
    if curve.printed is not None:
        hollow: dict[str, Any] = {
            "marker": shape,
            "markerfacecolor": "white",
            "markersize": 5.5,
            "linewidth": 1.0,
        }
        printed = _array(curve.printed)
        known = np.isfinite(printed)  # papers print some points only; the line joins those
        axes.plot(x[known], printed[known], color=colour, linestyle=(0, (3, 2)), **hollow)


def _scale(axes: Axes, panel: Panel) -> None:
    if panel.ticks:
        tilt = 30 if sum(map(len, panel.ticks)) > _LETTERS else 0
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=tilt, ha="right" if tilt else "center")
    if panel.log_x:
        make_log(axes, "x")
        places = sorted({x for curve in panel.curves for x in curve.x if x > 0})
        if 0 < len(places) <= _LEVELS:  # the points that were measured say more than decades
            _tick(axes, places)
    if panel.log_y:
        make_log(axes, "y")
    elif panel.y_range is not None:
        lowest, highest = panel.y_range
        room = 0.02 * (highest - lowest)  # so that a line at 0 or 1 is not cut in half
        axes.set_ylim(lowest - room, highest + room)
        if panel.y_range == (0.0, 1.0):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\u202f%"))


def _tick(axes: Axes, places: list[float]) -> None:
    """Set a tick at each ascending place, with labels in smaller type where they would touch, else some without."""
    axes.set_xticks(places)
    names = [f"{place:g}" if "e" not in f"{place:g}" else power_of_ten(place) for place in places]
    middles = axes.transData.transform([(place, 0.5) for place in places])[:, 0] * 72 / axes.figure.dpi
    for size in (9.0, 8.0, 7.0):
        reach = [_WIDE * size * (len(name) - 0.5 * name.count(".") + 0.5) / 2 for name in names]  # with half a space
        kept = _apart(middles, reach)
        if len(kept) == len(places):
            break
    axes.set_xticks(places, [name if place in kept else "" for place, name in enumerate(names)], fontsize=size)


def _apart(middles: NDArray[np.float64], reach: list[float]) -> list[int]:
    """Return which of ascending labels, each from middle - reach to middle + reach, stand apart; the ends go first."""
    last = len(reach) - 1
    kept = [0]
    for place in range(1, last):
        left, right = middles[place] - reach[place], middles[place] + reach[place]
        if left >= middles[kept[-1]] + reach[kept[-1]] and right <= middles[last] - reach[last]:
            kept.append(place)
    free = middles[last] - reach[last] >= middles[kept[-1]] + reach[kept[-1]]
    return [*kept, last] if last and free else kept


def _array(values: Sequence[Number]) -> NDArray[np.float64]:
    return np.asarray([math.nan if value is None else value for value in values], float)
