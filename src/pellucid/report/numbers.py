"""How numbers are written, the same in every table, figure and text."""

import math

from pellucid.report.content import Cell, Number, Style

MISSING = "—"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def missing(value: float | str | None) -> bool:
    """Return whether there is no number: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float) -> str:
    """Write a number with three significant digits, very small and large ones as powers of ten.

    >>> number(0.1234), number(-12.5), number(12345.6), number(3.2e-12), number(7)
    ('0.123', '−12.5', '12,346', '3.20·10⁻¹²', '7')
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
        text = f"{value:.3g}" if size < 1e-2 else f"{value:.{2 - max(math.floor(math.log10(size)), -1)}f}"
    return text.replace("-", "−")


def percent(value: float, sign: bool = True) -> str:
    """Write a fraction as a percentage with one digit.

    >>> percent(0.9734), percent(1.0, sign=False)
    ('97.3\\u202f%', '100.0')
    """
    return f"{100 * value:.1f}".replace("-", "−") + ("\u202f%" if sign else "")


def written(value: float | str | None, style: Style = "percent", sign: bool = True) -> str:
    """Write any value of a cell; a missing one is a dash."""
    if isinstance(value, str):
        return value
    if value is None or missing(value):
        return MISSING
    return percent(value, sign) if style == "percent" and not isinstance(value, int) else number(value)


def interval(low: Number, high: Number, style: Style = "percent") -> str:
    """Write an interval without its unit, "" where either end is missing.

    >>> interval(0.961, 0.982), interval(0.1, None)
    ('96.1–98.2', '')
    """
    if low is None or high is None or missing(low) or missing(high):
        return ""
    apart = " to " if min(low, high) < 0 else "–"
    return f"{written(low, style, sign=False)}{apart}{written(high, style, sign=False)}"


def plain(cell: Cell | str) -> str:
    """Write a whole cell in one line: value, [interval], (paper: printed value)."""
    if isinstance(cell, str):
        return cell
    within = interval(cell.low, cell.high, cell.style)
    parts = [written(cell.value, cell.style), f"[{within}]" if within else ""]
    parts.append("" if missing(cell.printed) else f"(paper: {written(cell.printed, cell.style)})")
    return " ".join(part for part in parts if part)


def power_of_ten(value: float) -> str:
    """Write the label of a tick on a log axis.

    >>> power_of_ten(1e-5), power_of_ten(1.0)
    ('10⁻⁵', '1')
    """
    power = round(math.log10(value)) if value > 0 else 0
    return "1" if power == 0 else f"10{str(power).translate(_SUPERSCRIPT)}"
