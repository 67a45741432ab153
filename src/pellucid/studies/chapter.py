"""What the chapters of all studies share: one of a paper's figures or tables as a task, and as sections of a page."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pellucid.store import write_json
from pellucid.tasks.io import Io


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Numbers of one part of a paper, computed from stored results: chapter.json, with the claims that they decide.

    `covers` names what of the checklist it shows (studies/checklist.json), `page` the module whose
    sections(io, task, found) says how. `name` tells chapters of one kind apart. `instead` says what stands in for the
    paper's data, networks or schedule; every caption of the chapter repeats it.
    """

    page: ClassVar[str]
    covers: ClassVar[tuple[str, ...]] = ()

    name: str
    instead: str = ""

    def title(self) -> str:
        """Name the work for people."""
        return self.name

    def run(self, io: Io) -> list[str]:
        """Compute the numbers; "claims" and "readings" among them, where there are any, go to the top of the page."""
        write_json(io.scratch / "chapter.json", self.numbers(io))
        return ["chapter.json"]

    def numbers(self, io: Io) -> dict[str, Any]:
        """Return the numbers as JSON values; nothing in them depends on time or machine."""
        raise NotImplementedError
