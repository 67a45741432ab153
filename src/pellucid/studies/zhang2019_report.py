"""The page of the Zhang & Zhu study as a task: its tables, curves, strips and maps, settings."""

from dataclasses import dataclass

from pellucid.spec import register
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "zhang2019_report")
@dataclass(frozen=True, kw_only=True)
class Zhang2019Report:
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    tables: TaskField
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.files import written  # only who draws pays for it
        from pellucid.studies.page.zhang import build_report

        return written(io, build_report(io, self))
