"""The page of the Boopathy et al. study."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport


@register("task", "boopathy2020_report")
@dataclass(frozen=True, kw_only=True)
class Boopathy2020Report(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the stored measurements."""

    page: ClassVar[str] = "pellucid.studies.page.boopathy"
