"""The page of the study of stability: input gradients as Figure 6 shows them, tau under attack, settings."""

from dataclasses import dataclass

from pellucid.spec import register
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "stability_report")
@dataclass(frozen=True, kw_only=True)
class StabilityReport:
    """report.html, the tables as Markdown and the figures as PNG, from the stored maps and taus."""

    tables: TaskField
    labels: tuple[str, ...]
    gradients: tuple[TaskField, ...]  # an Explain of the input gradients for each label
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.files import written  # only who draws pays for it
        from pellucid.studies.page.stability import build_report

        return written(io, build_report(io, self))
