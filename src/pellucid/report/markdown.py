"""Tables for the documentation."""

from pellucid.report.content import Table
from pellucid.report.numbers import numeric, one_line

_HARMFUL = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "\r": " ", "\n": " "}


def to_markdown(table: Table) -> str:
    """Write a table in Markdown: caption, header, rows (numbers to the right), notes."""
    right = [place > 0 and numeric(table, place) for place in range(len(table.header))]
    lines = [f"**{_safe(table.caption)}**", "", _line(table.header)]
    lines.append("| " + " | ".join("---:" if to_right else "---" for to_right in right) + " |")
    lines += [_line(tuple(one_line(cell) for cell in row)) for row in table.rows]
    lines += ["", *(f"{_safe(note)}\n" for note in table.notes)] if table.notes else []
    return "\n".join(lines).rstrip("\n") + "\n"


def _line(parts: tuple[str, ...]) -> str:
    return "| " + " | ".join(_safe(part) for part in parts) + " |"


def _safe(text: str) -> str:
    return "".join(_HARMFUL.get(letter, letter) for letter in text)
