"""The task graph: what an experiment needs, in order, and the loop that computes what is missing."""

import dataclasses
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from pellucid.data import Blank
from pellucid.errors import DataError, PellucidError, StoreError
from pellucid.maths.passes import counted
from pellucid.protocols import silent
from pellucid.spec import digest, kind_of, name_of
from pellucid.store import Result, Store, explained
from pellucid.tasks.cost import Cost
from pellucid.tasks.io import Io, Options, commit


class Watch:
    """What `run` tells whoever watches; this one is silent."""

    def planned(self, steps: "list[Planned]") -> None:
        """The whole plan, before the first task starts."""

    def started(self, task: Any) -> None:
        """A task begins (or goes on)."""

    def progressed(self, done: int, total: int, **numbers: float) -> None:
        """The running task has done some of its units."""

    def finished(self, task: Any, result: Result) -> None:
        """A task is finished and in the store."""

    def waiting(self, task: Any) -> None:
        """Another process works on the only tasks that are left."""


@dataclass(frozen=True)
class Planned:
    """One task of a plan and whether its result is there."""

    task: Any
    done: bool


def inputs(task: Any) -> Iterator[Any]:
    """Yield the tasks that a task's fields hold, at any depth of tuples and descriptions."""
    for field in dataclasses.fields(task):
        yield from _tasks_in(getattr(task, field.name))


def _tasks_in(value: Any) -> Iterator[Any]:
    if kind_of(value) == "task":
        yield value
    elif kind_of(value):
        yield from inputs(value)
    elif isinstance(value, tuple):
        for part in value:
            yield from _tasks_in(part)


def order(task: Any) -> list[Any]:
    """Return the task after everything it needs, each once."""
    seen: dict[str, Any] = {}

    def visit(node: Any) -> None:
        for needed in inputs(node):
            if digest(needed) not in seen:
                visit(needed)
        seen[digest(node)] = node

    visit(task)
    return list(seen.values())


def plan(task: Any, store: Store) -> list[Planned]:
    """Return every task that `task` needs, in order, itself last, and which are done."""
    return [Planned(node, store.has(node)) for node in order(task)]


def run(task: Any, store: Store, options: Options | None = None, watch: Watch | None = None) -> Result:
    """Compute what is missing of a task and its inputs, and return its result.

    What is finished is not computed again; unfinished work goes on from its parts. Several processes may run on
    one store: each takes a task that no other holds, and waits where others hold all that is left.
    Raises what a task raises; finished work and parts stay in the store.
    """
    options, watch = options or Options(), watch or Watch()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    new = not store.root.exists()
    commit()  # now: the files may change while a long run goes on
    steps = plan(task, store)
    watch.planned(steps)
    missing = [step.task for step in steps if not step.done]
    try:
        if missing:  # a finished store may be read-only
            store.prepare()
        with explained(store.root):
            _work_off(missing, store, options, watch)
    except PellucidError:
        if new:
            store.withdraw()
        raise
    return store.open(task)


def _work_off(left: list[Any], store: Store, options: Options, watch: Watch) -> None:
    while left:
        ready = [node for node in left if all(store.has(needed) for needed in inputs(node))]
        if not ready:
            gone = [needed for node in left for needed in inputs(node) if needed not in left and not store.has(needed)]
            raise StoreError(f"{label(gone[0])} was there and has gone from {store.root}; run again to make it again")
        done = next((node for node in ready if _attempt(node, store, options, watch)), None)
        if done is None:
            watch.waiting(ready[0])
            time.sleep(0.5)
        left = [node for node in left if node is not done and not store.has(node)]


def _attempt(task: Any, store: Store, options: Options, watch: Watch) -> bool:
    """Run one task unless another process holds it; say whether it is done now."""
    with store.claim(task) as free:
        if not free:
            return False
        if store.has(task):
            return True
        watch.started(task)
        store.scratch(task).mkdir(parents=True, exist_ok=True)
        io = Io(task, store, options, watch.progressed)
        io.sign()
        watch.finished(task, _run(task, io))
        return True


def _run(task: Any, io: Io) -> Result:
    began = time.monotonic()
    try:
        with counted() as passes:
            files = task.run(io)
        if not io.ledger():  # a task without parts: what it cost is what it took now
            io.spend("run", time.monotonic() - began, passes)
        return io.store.commit(task, io.meta(), files)
    except PellucidError:
        if io.unbegun():
            shutil.rmtree(io.scratch, ignore_errors=True)  # refused before anything was made: leave nothing
        raise


def rehearse(task: Any, store: Store, options: Options | None = None) -> Cost | None:
    """Return what a missing task may cost, by trying a few of its steps; None where it cannot say.

    Where its images are not here, blank ones of their form stand in (`pellucid.data.Blank`), for sets of known form.
    """
    if not hasattr(task, "rehearse"):
        return None
    io = Io(task, store, options or Options(), silent)
    try:
        return cast(Cost, task.rehearse(io))
    except StoreError:  # an input that is not made yet
        return None
    except DataError:
        pass
    try:
        return cast(Cost, blanked(task).rehearse(io))
    except (StoreError, DataError):
        return None


def blanked(task: Any) -> Any:
    """Return a task whose own data are blank images."""
    named = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    data = {name: Blank(of=value) for name, value in named.items() if kind_of(value) == "data"}
    return dataclasses.replace(task, **data)


def label(task: Any) -> str:
    """Return a task's name for people."""
    title: str = task.title() if hasattr(task, "title") else name_of(task)
    return title
