"""Distribution of input-gradient norms (the paper's Figure 4)."""

from typing import Any

import pyarrow.parquet as pq

from pellucid.report import Box, BoxFigure, BoxPanel, Section
from pellucid.studies.ross2018_page.source import Source


def section(source: Source) -> Section:
    """Return the section."""
    stored = [pq.read_table(source.result(task).folder / "norms.parquet") for task in source.task.norms]
    kinds = (("true", "loss of the true label (FGSM)"), ("next", "loss of the next label (TGSM)"))
    panels = tuple(
        BoxPanel(title, tuple(_boxes(source, kind, stored)), "l2 norm of the input gradient") for kind, title in kinds
    )
    return Section(
        "How steep the loss is",
        "The longer the gradient of the loss with respect to the image, the more a small change of the "
        "image can do: norm for each test image, of the loss of its true label (what FGSM climbs) and of "
        "the next label (what TGSM descends). The paper's Figure 4.",
        (BoxFigure("Distribution of input-gradient norms", panels),),
    )


def _boxes(source: Source, kind: str, stored: list[Any]) -> list[Box]:
    return [
        Box(label, tuple(table[kind].to_pylist()), source.looks(label)[0], source.cite(task))
        for label, task, table in zip(source.labels, source.task.norms, stored)
    ]
