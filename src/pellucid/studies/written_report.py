"""What the pages of all studies share: a task that renders stored results, and computes nothing."""

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results.

    `page` is the module whose build_report(io, task) returns what the page says of `tables`; the sections of the
    chapters follow.
    """

    page: ClassVar[str]

    tables: TaskField
    chapters: tuple[TaskField, ...] = ()
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        from pellucid.studies.page.chapters import with_chapters  # only who draws pays for it
        from pellucid.studies.page.files import written

        return written(io, with_chapters(import_module(self.page).build_report(io, self), io, self.chapters))
