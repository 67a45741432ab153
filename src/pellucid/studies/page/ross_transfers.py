"""The sections of Ross & Doshi-Velez 2018, Figures 1 to 3: a panel for each network that examples are made for."""

from typing import Any

from pellucid.report import Curve, CurveFigure, Panel, Section
from pellucid.spec import digest
from pellucid.studies.ross2018_networks import ADVERSARIAL, BOTH, CERTAINTY, DISTILLED, LABEL_PENALTY, NORMAL
from pellucid.tasks.io import Io

LOOKS = {  # the authors' colours and markers
    NORMAL: ("#0000ff", "o"),
    DISTILLED: ("#87ceeb", "p"),
    ADVERSARIAL: ("#8b0000", "H"),
    LABEL_PENALTY: ("#008000", "v"),
    CERTAINTY: ("#7cfc00", "^"),
    BOTH: ("#006400", "D"),
}
_TEXT = (
    "Each panel: examples made for one network, accuracy of every network on them, against the original label; eps in "
    "the units of the data. Dashed: the authors' notebooks, 256 test images, trained for the paper's schedule."
)


def sections(io: Io, task: Any, found: dict[str, Any]) -> tuple[Section, ...]:
    """Return the figures of FGSM and TGSM."""
    rows = found["rows"]
    first = "Figures 1 and 2 (I1, I2)" if BOTH in task.labels else "Figure 1 (I1)"
    blocks = (
        _figure(f"{first}. Accuracy on FGSM examples, {task.name}", rows, "FGSM", task.labels, task.fgsm),
        _figure(f"Figure 3 (I3). Accuracy on TGSM examples, {task.name}", rows, "TGSM", task.labels, task.tgsm),
    )
    return (Section(f"Transferred examples: {task.name}", _TEXT, blocks),)


def _figure(caption: str, rows: list[dict[str, Any]], attack: str, labels: tuple[str, ...], tasks: Any) -> CurveFigure:
    panels = []
    for maker, task in zip(labels, tasks, strict=True):
        curves = tuple(_curve(rows, attack, maker, judge, digest(task)[:12]) for judge in labels)
        panels.append(Panel(f"made for {maker}", curves, "eps", "accuracy"))
    return CurveFigure(f"{caption}, {rows[0]['images']:,} test images", tuple(panels))


def _curve(rows: list[dict[str, Any]], attack: str, maker: str, judge: str, key: str) -> Curve:
    own = [row for row in rows if (row["attack"], row["made_for"], row["judge"]) == (attack, maker, judge)]
    x, y, low, high, known = (tuple(row[name] for row in own) for name in ("eps", "value", "low", "high", "printed"))
    colour, marker = LOOKS[judge]
    return Curve(judge, x, y, low, high, None if known[0] is None else known, colour, marker, key)
