"""The page of the Zhang & Zhu study as a task: its tables, curves, strips and maps, settings."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport


@register("task", "zhang2019_report")
@dataclass(frozen=True, kw_only=True)
class Zhang2019Report(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    page: ClassVar[str] = "pellucid.studies.page.zhang"
