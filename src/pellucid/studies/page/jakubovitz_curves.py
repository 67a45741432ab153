"""The sections of Jakubovitz & Giryes 2018, Figures 1 and 2, with the same networks under AutoAttack."""

from typing import Any

from pellucid.report import Cell, Curve, CurveFigure, Panel, Section, Table
from pellucid.spec import digest
from pellucid.tasks.io import Io

_TEXT = (
    "FGSM: every image at every eps, sign of the gradient of the loss of the true class (equation 16 prints a minus, "
    "read as a misprint). JSMA: one pixel a step, changed by theta, a pixel may be chosen again. The paper's curves "
    "have no printed numbers. AutoAttack, at the eps of adversarial training, is not in the paper."
)


def sections(io: Io, task: Any, found: dict[str, Any]) -> tuple[Section, ...]:
    """Return the two figures and the table."""
    rows = found["rows"]
    keys = {(label, "FGSM"): digest(part)[:12] for label, part in zip(task.fgsm_labels, task.fgsm)}
    keys |= {(label, "AutoAttack"): digest(part)[:12] for label, part in zip(task.autoattack_labels, task.autoattacked)}
    blocks = (
        _curves("Figure 1 (I26). Accuracy under FGSM", rows, "FGSM", "eps", keys),
        _curves("Figure 2 (I27). Accuracy under the 1-pixel JSMA", rows, "JSMA", "change of a pixel", keys),
        _table(rows, keys),
    )
    return (Section(f"Under attack: {task.name}", _TEXT, blocks),)


def _curves(caption: str, rows: list[dict[str, Any]], attack: str, size: str, keys: dict[Any, str]) -> CurveFigure:
    own = [row for row in rows if row["attack"] == attack]
    curves = []
    for label in dict.fromkeys(row["network"] for row in own):
        line = [row for row in own if row["network"] == label]
        x, y, low, high = (tuple(row[key] for row in line) for key in ("size", "value", "low", "high"))
        curves.append(Curve(label, x, y, low, high, settings=keys.get((label, attack))))
    images = own[0]["images"]
    return CurveFigure(f"{caption}, {images:,} test images", (Panel("", tuple(curves), size, "accuracy"),))


def _table(rows: list[dict[str, Any]], keys: dict[Any, str]) -> Table:
    own = [row for row in rows if row["attack"] == "AutoAttack"]
    lines = tuple(
        (row["network"], Cell(row["value"], row["low"], row["high"], settings=keys[row["network"], "AutoAttack"]))
        for row in own
    )
    header = ("network", f"eps {own[0]['size']:g}")
    return Table(f"Not in the paper: accuracy under AutoAttack, {own[0]['images']} test images", header, lines)
