"""How numbers are written, the same in every table, figure and text."""

import math
from typing import NamedTuple

from pellucid.report.content import Cell, Number, Style, Table

MISSING = "—"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def missing(value: float | str | None) -> bool:
    """Return whether there is no number: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float) -> str:
    """Write a number with three significant digits, very small and large ones as powers of ten.

    >>> number(0.1234), number(-12.5), number(12345.6), number(3.2e-12), number(0.0)
    ('0.123', '−12.5', '12,346', '3.20·10⁻¹²', '0')
    """
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        digits, power = f"{value:.2e}".split("e")
        text = f"{digits}·10{str(int(power)).translate(_SUPERSCRIPT)}"
    elif size >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{2 - math.floor(math.log10(size)) if size else 0}f}"
    return text.replace("-", "−")


def percent(value: float, sign: bool = True) -> str:
    """Write a fraction as a percentage with one digit.

    >>> percent(0.9734), percent(1.0, sign=False)
    ('97.3\\u202f%', '100.0')
    """
    return f"{100 * value:.1f}".replace("-", "−") + ("\u202f%" if sign else "")


def decimals(value: float) -> str:
    """Write a number with three digits after the point.

    >>> decimals(0.12), decimals(-0.00308)
    ('0.120', '−0.003')
    """
    return f"{value:.3f}".replace("-", "−")


class Written(NamedTuple):
    """The words of a cell; `interval` and `printed` are "" where there is none."""

    value: str
    interval: str
    printed: str


def written(cell: Cell) -> Written:
    """Return what is written in a cell; a missing value is a dash.

    >>> written(Cell(0.973, 0.961, 1, printed=0.98))
    Written(value='97.3\\u202f%', interval='96.1–100.0', printed='98.0')
    >>> written(Cell(12)), written(Cell(None))
    (Written(value='12', interval='', printed=''), Written(value='—', interval='', printed=''))
    """
    style: Style = "number" if isinstance(cell.value, int) else cell.style
    return Written(_value(cell.value, style), _interval(cell.low, cell.high, style), _bare(cell.printed, style))


def one_line(cell: Cell | str) -> str:
    """Write a whole cell in one line: value, [interval], (paper: printed value)."""
    if isinstance(cell, str):
        return cell
    said = written(cell)
    parts = (said.value, said.interval and f"[{said.interval}]", said.printed and f"(paper: {said.printed})")
    return " ".join(part for part in parts if part)


def numeric(table: Table, place: int) -> bool:
    """Return whether a column holds numbers, which are set to the right."""
    cells = [row[place] for row in table.rows]
    return any(isinstance(cell, Cell) and not isinstance(cell.value, str) for cell in cells)


def _value(value: float | str | None, style: Style) -> str:
    if isinstance(value, str):
        return value
    if value is None or missing(value):
        return MISSING
    return percent(value) if style == "percent" else _bare(value, style)


def _interval(low: Number, high: Number, style: Style) -> str:
    if missing(low) or missing(high):
        return ""
    below = "−" in _bare(low, style) + _bare(high, style)  # a dash between signs is hard to read
    return f"{_bare(low, style)}{' to ' if below else '–'}{_bare(high, style)}"


def _bare(value: Number, style: Style) -> str:
    if value is None or missing(value):
        return ""
    if style == "percent":
        return percent(float(value), sign=False)
    return decimals(value) if style == "decimals" else number(value)


def power_of_ten(value: float) -> str:
    """Write the label of a tick on a log axis, in full where it is no power of ten.

    >>> power_of_ten(1e-5), power_of_ten(1.0), power_of_ten(0.02)
    ('10⁻⁵', '1', '0.0200')
    """
    power = round(math.log10(value)) if value > 0 else 0
    if not math.isclose(value, 10.0**power):
        return number(value)
    return "1" if power == 0 else f"10{str(power).translate(_SUPERSCRIPT)}"
