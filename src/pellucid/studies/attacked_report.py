"""The page of a study that measures networks under attacks: readings, curves, tables, warnings, settings."""

from dataclasses import dataclass

from pellucid.spec import register
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "attacked_report")
@dataclass(frozen=True, kw_only=True)
class AttackedReport:
    """report.html, the tables as Markdown and the figures as PNG, from the stored measurements."""

    heading: str
    about: str
    tables: TaskField
    pictures: tuple[TaskField, ...] = ()  # an Explain without interpreters for each measurement, or none
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.attacked import build_report  # only who draws pays for it
        from pellucid.studies.page.files import written

        return written(io, build_report(io, self))
