"""The numbers behind a drawing as a table: for who cannot see it, or asks for the settings."""

from pellucid.report.boxes import summarise
from pellucid.report.content import BoxPanel, Cell, Curve, Number, Panel, Style, Table
from pellucid.report.numbers import power_of_ten

_MOST = 16  # columns; longer curves are thinned


def panel_table(panel: Panel) -> Table:
    """Return one row a curve and one column an x; of long curves evenly spread points up to the last."""
    every = sorted({x for curve in panel.curves for x in curve.x})
    last = len(every) - 1
    shown = every if last < _MOST else [every[round(place * last / (_MOST - 1))] for place in range(_MOST)]
    style: Style = "percent" if panel.y_range == (0.0, 1.0) and not panel.log_y else "number"
    rows = tuple((_name(curve), *(_point(curve, x, style) for x in shown)) for curve in panel.curves)
    notes = () if len(shown) == len(every) else (f"{len(shown)} of {len(every)} points.",)
    return Table(panel.title, (panel.x_label, *(_place(panel, x) for x in shown)), rows, notes)


def box_table(panel: BoxPanel) -> Table:
    """Return one row a distribution: how many values, its mean and quantiles."""
    header = ["", "values", "mean", "5 %", "25 %", "median", "75 %", "95 %"]
    header += [f"at {power_of_ten(panel.floor)} or below"] if panel.log else []
    rows = []
    for box in panel.boxes:
        found = summarise(box, panel)
        points = (found.mean, found.p5, found.q1, found.median, found.q3, found.p95)
        key = box.settings
        cells = [Cell(found.values, settings=key)]
        cells += [Cell(point, settings=key, style="number") for point in points]
        cells += [Cell(found.at_floor, settings=key)] if panel.log else []
        rows.append((Cell(box.label, settings=key), *cells))
    return Table(panel.title, tuple(header), tuple(rows))


def _name(curve: Curve) -> Cell:
    return Cell(curve.label, settings=curve.settings)


def _point(curve: Curve, x: float, style: Style) -> Cell:
    if x not in curve.x:
        return Cell(None)
    place = curve.x.index(x)

    def at(values: tuple[Number, ...] | None) -> Number:
        return None if values is None else values[place]

    value = curve.y[place]
    as_float = None if value is None else float(value)
    return Cell(as_float, at(curve.low), at(curve.high), at(curve.printed), curve.settings, style)


def _place(panel: Panel, x: float) -> str:
    return panel.ticks[int(x)] if panel.ticks else _short(x)


def _short(x: float) -> str:
    return f"{x:.6g}".replace("-", "−")
