"""matplotlib, held still: one style, one back end, and drawings that can stand together on one page."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, GREY, LINE = "#1c1e21", "#5b6169", "#c9cdd2"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the font of the page
    "svg.hashsalt": "pellucid",
    "text.parse_math": False,  # a class called "$" is no formula
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style for the time of one drawing, whatever style the caller's own plots have."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def png(figure: Figure, dpi: int) -> bytes:
    """Return the figure as PNG bytes, without date and version."""
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def svg(figure: Figure, prefix: str, title: str) -> str:
    """Return the figure as an <svg> element to stand inside a page; its ids begin with `prefix`."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure)
    figure.savefig(out, format="svg", metadata=nothing)
    return _inline(out.getvalue(), prefix, title)


def _inline(text: str, prefix: str, title: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    opening, rest = text[: text.index(">")], text[text.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]*)"', opening)
    assert box is not None  # matplotlib always writes one
    used = set(re.findall(r'href="#([^"]+)"', rest)) | set(re.findall(r"url\(#([^)]+)\)", rest))
    # matplotlib names every group (figure_1, axes_1 ...), which would stand twice on a page with two figures
    rest = re.sub(r' id="([^"]+)"', lambda hit: f' id="{prefix}-{hit[1]}"' if hit[1] in used else "", rest)
    rest = re.sub(r'href="#', f'href="#{prefix}-', rest)
    rest = rest.replace("url(#", f"url(#{prefix}-")
    name = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return f'<svg role="img" aria-label="{name}" viewBox="{box[1]}">{rest}'
