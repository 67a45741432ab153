"""Colours and markers: a cycle that colour-blind readers can tell apart, and scales for numbers and maps."""

from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray

from pellucid.report.content import Curve

# Okabe and Ito's colours without yellow, which is lost on white
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
SEQUENTIAL, DIVERGING = "YlGnBu", "RdBu_r"


def styles(curves: Iterable[Curve]) -> dict[str, tuple[str, str]]:
    """Return (colour, marker) for every label; a curve's own choice goes before the cycle."""
    chosen: dict[str, tuple[str, str]] = {}
    for curve in curves:
        place = len(chosen)
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        chosen.setdefault(curve.label, (to_hex(curve.colour or colour), curve.marker or marker))
    return chosen


def shade(value: float, lowest: float, highest: float) -> tuple[str, str]:
    """Return the background of a number between lowest and highest, and the ink that is legible on it."""
    share = 0.5 if highest == lowest else (value - lowest) / (highest - lowest)
    # the ends of the scale are cut so that text is legible everywhere
    background = to_hex(matplotlib.colormaps[SEQUENTIAL](0.04 + 0.86 * min(max(share, 0.0), 1.0)))
    return background, "#000000" if luminance(background) > 0.179 else "#ffffff"


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour in [0, 1], as accessibility guidelines define it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def coloured(values: NDArray[np.float64], signed: bool) -> NDArray[np.uint8]:
    """Return maps (H, W) in [-1, 1] (signed: blue, white, red) or [0, 1] as (H, W, 3) bytes; NaN is grey."""
    scale = matplotlib.colormaps[DIVERGING if signed else "magma"].with_extremes(bad="#bbbbbb")
    share = (np.clip(values, -1, 1) + 1) / 2 if signed else np.clip(values, 0, 1)
    bytes_: NDArray[np.uint8] = scale(np.ma.masked_invalid(share), bytes=True)[..., :3]
    return bytes_
