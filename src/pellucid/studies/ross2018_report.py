"""The page of the Ross & Doshi-Velez study as a task: numbers, figures, pictures, settings behind them."""

from dataclasses import dataclass

from pellucid.spec import register
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "ross2018_report")
@dataclass(frozen=True, kw_only=True)
class Ross2018Report:
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    tables: TaskField
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    version = 1

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.files import written
        from pellucid.studies.ross2018_page import build_report  # only who draws pays for it

        report = build_report(io, self.tables, tuple(zip(self.choices[::2], self.choices[1::2])))
        return written(io, report)
