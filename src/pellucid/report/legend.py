"""The legend that the panels of a figure share: line, marker, name, and the way to the settings."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle

from pellucid.report.content import CurveFigure
from pellucid.report.curves import has_numbers
from pellucid.report.looks import styles

_MOST = 6  # links beside one name; more of them are found in the table of numbers


class Entry(NamedTuple):
    """One name in the legend; `links` are (key of settings, title of the first panel that uses it)."""

    label: str
    swatch: Markup
    links: tuple[tuple[str, str], ...]
    missing: bool


def entries(block: CurveFigure) -> list[Entry]:
    """Return one entry a label, in order of first appearance."""
    found = []
    for label, (colour, marker) in styles(curve for panel in block.panels for curve in panel.curves).items():
        used = [(panel, curve) for panel in block.panels for curve in panel.curves if curve.label == label]
        links: dict[str, str] = {}
        for panel, curve in used:
            if curve.settings is not None:
                links.setdefault(curve.settings, panel.title)
        kept = tuple(links.items()) if len(links) <= _MOST else ()
        found.append(Entry(label, swatch(colour, marker), kept, not any(has_numbers(curve) for _, curve in used)))
    return found


def has_printed(block: CurveFigure) -> bool:
    """Return whether any panel shows what the paper printed."""
    return any(curve.printed for panel in block.panels for curve in panel.curves)


def has_bands(block: CurveFigure) -> bool:
    """Return whether any panel shows intervals."""
    return any(curve.low and curve.high for panel in block.panels for curve in panel.curves)


def swatch(colour: str, marker: str, hollow: bool = False) -> Markup:
    """Return a short line with its marker as a small <svg>; colour is "#rrggbb"."""
    shape = MarkerStyle(marker)
    outline = shape.get_path().transformed(shape.get_transform())
    parts = []
    for polygon in outline.to_polygons(closed_only=False):
        points = " ".join(f"{14 + 7 * x:.2f},{6 - 7 * y:.2f}" for x, y in np.asarray(polygon))
        parts.append(f'<polyline points="{points}"/>')
    dash = ' stroke-dasharray="4 2.5"' if hollow else ""
    fill = "#ffffff" if hollow else colour if shape.is_filled() else "none"
    return Markup(
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" stroke="{colour}" fill="{fill}">'
        f'<line x1="0" x2="28" y1="6" y2="6" stroke-width="1.6"{dash}/>{"".join(parts)}</svg>'
    )
