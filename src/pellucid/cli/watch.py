"""Progress for people: live bars on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pellucid.cli.common import interactive, screen
from pellucid.store import Result
from pellucid.tasks.graph import Planned, Watch, label


@contextlib.contextmanager
def watch_for(quiet: bool) -> Iterator[Watch]:
    """Yield what suits the place: nothing, live bars on a terminal, or plain lines."""
    if quiet:
        yield Watch()
    elif interactive():
        with Bars() as bars:
            yield bars
    else:
        yield Lines()


def _figures(numbers: dict[str, float]) -> str:
    shown = {k: v for k, v in numbers.items() if v == v}
    return "  ".join(f"{k} {v:.1%}" if k == "accuracy" else f"{k} {v:.4g}" for k, v in shown.items())


class Bars(Watch):
    """Two live bars: the plan, and the running task with loss, accuracy so far and time left."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=screen(stderr=True),
        )
        self.whole: TaskID | None = None
        self.current: TaskID | None = None
        self.shown = 0.0

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def planned(self, steps: list[Planned]) -> None:
        """Show the plan."""
        done = sum(step.done for step in steps)
        if len(steps) > 1:
            self.whole = self.bars.add_task("all", total=len(steps), completed=done, figures="")

    def started(self, task: Any) -> None:
        """Show the running task."""
        self.current = self.bars.add_task(label(task), total=None, figures="")

    def progressed(self, done: int, total: int, **numbers: float) -> None:
        """Move the running task's bar, ten times a second at most."""
        now = time.monotonic()
        if self.current is not None and (done == total or now - self.shown > 0.1):
            self.shown = now
            self.bars.update(self.current, completed=done, total=total, figures=_figures(numbers))

    def finished(self, task: Any, result: Result) -> None:
        """Replace the task's bar by a line."""
        if self.current is not None:
            self.bars.remove_task(self.current)
        self.bars.console.print(f"[green]✓[/green] {label(task)} [dim]{result.meta['wall_seconds']:.0f} s[/dim]")
        if self.whole is not None:
            self.bars.advance(self.whole)

    def waiting(self, task: Any) -> None:
        """Say that another run holds what is left."""
        if self.whole is not None:
            self.bars.update(self.whole, figures=f"another run works on: {label(task)}")


class Lines(Watch):
    """A line when a task starts, ends, and every half minute between."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.said_waiting = False
        self.name = ""

    def planned(self, steps: list[Planned]) -> None:
        """Say how much there is to do."""
        self._line(f"{len(steps)} tasks, {sum(step.done for step in steps)} of them done")

    def started(self, task: Any) -> None:
        """Say what begins."""
        self.name, self.last = label(task), time.monotonic()
        self._line(f"start  {self.name}")

    def progressed(self, done: int, total: int, **numbers: float) -> None:
        """Say how far the task is."""
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            self._line(f"       {self.name}: {done} of {total}  {_figures(numbers)}")

    def finished(self, task: Any, result: Result) -> None:
        """Say what ended."""
        self._line(f"done   {label(task)} in {result.meta['wall_seconds']:.1f} s")

    def waiting(self, task: Any) -> None:
        """Say once that another run holds what is left."""
        if not self.said_waiting:
            self._line(f"another run works on: {label(task)}; waiting for it")
        self.said_waiting = True

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
