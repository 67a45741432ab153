"""pellucid study run | show, and pellucid report."""

import json as json_text
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table as Grid

from pellucid.cli.common import Common, Place, export, screen
from pellucid.errors import StoreError

study = App(
    name="study", help="Run a paper's experiments, or show what that takes.", help_format="plaintext", help_epilogue=""
)

Scale = Annotated[str, Parameter(help="smoke (a minute, embedded data), small (an hour on two cores), or paper.")]
Out = Annotated[Place | None, Parameter(help="Folder for the report [STORE/reports/NAME-SCALE].")]


@study.command
def run(name: str, /, *, scale: Scale = "smoke", out: Out = None, common: Common = Common()) -> None:
    """Run what is missing of a study and write its report; the report's path is printed last.

    Parameters
    ----------
    name
        The study (pellucid list study).
    """
    from pellucid.studies import find_study

    task = find_study(name, scale)
    result = common.run(task)
    _deliver(task, result, name, scale, out, common)


@study.command
def show(name: str, /, *, scale: Scale = "smoke", timing: bool = True, common: Common = Common()) -> None:
    """Show a study's plan: what is done, what is missing, and how long the missing part may take.

    Parameters
    ----------
    name
        The study (pellucid list study).
    timing
        Time a few steps of every missing task, to estimate; takes seconds, or minutes at paper scale.
    """
    from pellucid.spec import digest
    from pellucid.studies import find_study
    from pellucid.tasks.graph import label, plan, rehearse

    store, options = common.open_store(), common.options()
    rows: list[dict[str, Any]] = []
    unknown = False  # a task that takes time could not be timed
    for step in plan(find_study(name, scale), store):
        seconds = rehearse(step.task, store, options) if timing and not step.done else None
        unknown |= seconds is None and not step.done and hasattr(step.task, "rehearse")
        rows.append({"task": label(step.task), "digest": digest(step.task), "done": step.done, "seconds": seconds})
    missing = [row for row in rows if not row["done"]]
    known = None if unknown else sum(float(row["seconds"] or 0) for row in missing)
    if common.json:
        common.say({"study": name, "scale": scale, "tasks": rows, "missing_seconds": known})
        return
    print(f"{name} at scale {scale}: {len(rows) - len(missing)} of {len(rows)} tasks done")
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("task", overflow="fold")
    grid.add_column("digest", no_wrap=True)
    grid.add_column("state", no_wrap=True)
    for row in rows:
        state = "[green]done[/green]" if row["done"] else f"missing {_time(row['seconds'])}"
        grid.add_row(str(row["task"]), str(row["digest"])[:12], state)
    screen().print(grid)
    if timing and missing:
        if known is None:
            print("How long that takes cannot be said: the images are not here (--data-root, or PELLUCID_DATA).")
        else:
            print(f"The missing part may take about {_time(known)} here (a few steps of each task were timed).")


def report(name: str, /, *, scale: Scale = "smoke", out: Out = None, common: Common = Common()) -> None:
    """Write a study's report from results that are all there; nothing is trained or attacked.

    Parameters
    ----------
    name
        The study (pellucid list study).
    """
    from pellucid.studies import find_study
    from pellucid.tasks.graph import plan

    task = find_study(name, scale)
    store = common.open_store()
    heavy = [step.task for step in plan(task, store) if not step.done and hasattr(step.task, "rehearse")]
    if heavy:
        raise StoreError(
            f"{len(heavy)} results of {name} at scale {scale} are missing in {store.root}; "
            f"pellucid study run {name} --scale {scale} computes them"
        )
    _deliver(task, common.run(task), name, scale, out, common)


def _deliver(task: Any, result: Any, name: str, scale: str, out: Path | None, common: Common) -> None:
    folder = out or common.open_store().root / "reports" / f"{name}-{scale}"
    files = {file: (result.folder / file).read_bytes() for file in result.meta["files"]}
    tables: dict[str, Any] = {}
    if hasattr(task, "tables"):
        tables = _numbers(task, common.open_store())
        files["tables.json"] = (json_text.dumps(tables, indent=1) + "\n").encode()
    export(folder, files)
    path = (folder / "report.html").resolve()
    lines = [f"{claim['name']}: {claim['verdict']}. {claim['statement']}" for claim in tables.get("claims", ())]
    lines += tables.get("readings", ())
    common.say({"study": name, "scale": scale, "report": str(path), **tables}, [*lines, "", str(path)])


def _numbers(task: Any, store: Any) -> dict[str, Any]:
    """Return the numbers of a study's tables and chapters, with the claims and readings of all together."""
    tables: dict[str, Any] = store.open(task.tables).json("tables.json")
    chapters = {chapter.name: store.open(chapter).json("chapter.json") for chapter in getattr(task, "chapters", ())}
    for key in ("claims", "readings"):
        told = [*tables.get(key, ()), *(row for found in chapters.values() for row in found.pop(key, ()))]
        tables |= {key: told} if told else {}
    return tables | ({"chapters": chapters} if chapters else {})


def _time(seconds: Any) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
