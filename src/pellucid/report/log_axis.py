"""Logarithmic axes that show ticks whatever span they cover."""

import math
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from pellucid.report.numbers import power_of_ten


def make_log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Turn an axis whose contents are drawn into a log axis: powers of ten where it spans at least two."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    decades = math.log10(high / low) if low > 0 else math.inf
    locator: Locator = LogLocator(numticks=6)
    if decades < 0.7:
        locator = MaxNLocator(4)  # even 1, 2, 5 would leave one tick or none
    elif decades < 2:
        locator = LogLocator(subs=(1.0, 2.0, 5.0))
    wide = decades >= 2
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value) if wide else f"{value:g}"))
