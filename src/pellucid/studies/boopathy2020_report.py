"""The page of the Boopathy et al. study."""

from dataclasses import dataclass

from pellucid.spec import register
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "boopathy2020_report")
@dataclass(frozen=True, kw_only=True)
class Boopathy2020Report:
    """report.html, the tables as Markdown and the figures as PNG, from the stored measurements."""

    tables: TaskField
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.boopathy import build_report  # only who draws pays for it
        from pellucid.studies.page.files import written

        return written(io, build_report(io, self))
