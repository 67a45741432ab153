"""The page of the Ross & Doshi-Velez study as a task: numbers, figures, pictures, settings behind them."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport


@register("task", "ross2018_report")
@dataclass(frozen=True, kw_only=True)
class Ross2018Report(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    page: ClassVar[str] = "pellucid.studies.ross2018_page"

    version = 1
