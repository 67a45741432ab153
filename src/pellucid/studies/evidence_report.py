"""The page of the study of evidence: tables, heat map, pictures, settings."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport
from pellucid.tasks.training import TaskField


@register("task", "evidence_report")
@dataclass(frozen=True, kw_only=True)
class EvidenceReport(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the stored scores and maps."""

    page: ClassVar[str] = "pellucid.studies.page.evidence"

    pictures: tuple[TaskField, ...]  # an Explain for each network
