"""The page of a study that measures networks under attacks: readings, curves, tables, warnings, settings."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport
from pellucid.tasks.training import TaskField


@register("task", "attacked_report")
@dataclass(frozen=True, kw_only=True)
class AttackedReport(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the stored measurements."""

    page: ClassVar[str] = "pellucid.studies.page.attacked"

    heading: str
    about: str
    pictures: tuple[TaskField, ...] = ()  # an Explain without interpreters for each measurement, or none
