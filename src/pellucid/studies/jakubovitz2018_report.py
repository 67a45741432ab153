"""The page of the Jakubovitz & Giryes study as a task: its tables, their order, distributions, settings."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport


@register("task", "jakubovitz2018_report")
@dataclass(frozen=True, kw_only=True)
class Jakubovitz2018Report(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    page: ClassVar[str] = "pellucid.studies.page.jakubovitz"
