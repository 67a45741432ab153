"""The page of the study of stability: input gradients as Figure 6 shows them, tau under attack, settings."""

from dataclasses import dataclass
from typing import ClassVar

from pellucid.spec import register
from pellucid.studies.written_report import WrittenReport
from pellucid.tasks.training import TaskField


@register("task", "stability_report")
@dataclass(frozen=True, kw_only=True)
class StabilityReport(WrittenReport):
    """report.html, the tables as Markdown and the figures as PNG, from the stored maps and taus."""

    page: ClassVar[str] = "pellucid.studies.page.stability"

    labels: tuple[str, ...]
    gradients: tuple[TaskField, ...]  # an Explain of the input gradients for each label
