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
def run(
    name: str, /, *, scale: Scale = "smoke", out: Out = None, dry_run: bool = False, common: Common = Common()
) -> None:
    """Run what is missing of a study and write its report; the report's path is printed last.

    Parameters
    ----------
    name
        The study (pellucid list study).
    dry_run
        Run nothing: list every task with what it may cost, in passes through the network and hours of a GPU.
    """
    from pellucid.studies import find_study

    task = find_study(name, scale)
    if dry_run:
        _plan(task, name, scale, True, common)
        return
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
    from pellucid.studies import find_study

    _plan(find_study(name, scale), name, scale, timing, common)


@study.command
def claims(*folders: Place, out: Place = Path("claims"), common: Common = Common()) -> None:
    """Put the claims of all papers into one table, their verdict and ours, from reports that were delivered.

    Parameters
    ----------
    folders
        Folders of reports: each holds tables.json.
    out
        Folder for the page (report.html and tables.md).
    """
    from pellucid.studies.front import front_page, judged_in, verdicts
    from pellucid.studies.page.files import files

    rows = judged_in(folders)
    export(out, files(front_page(rows)))
    found = {name: verdict for name, (verdict, _) in verdicts(rows).items()}
    common.say({"claims": found, "page": str(out.resolve())}, [*(f"{k}: {v}" for k, v in found.items()), "", str(out)])


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


def _plan(task: Any, name: str, scale: str, timing: bool, common: Common) -> None:
    from pellucid.spec import digest
    from pellucid.tasks.cost import GPU_FLOPS, GPU_LAUNCH
    from pellucid.tasks.graph import label, plan, rehearse

    store, options = common.open_store(), common.options()
    rows: list[dict[str, Any]] = []
    for step in plan(task, store):
        cost = rehearse(step.task, store, options) if timing and not step.done else None
        told: dict[str, Any] = {} if cost is None else {"seconds": cost.seconds, "gpu_hours": cost.gpu_hours()}
        told |= {} if cost is None else {"forward": round(cost.forward), "backward": round(cost.backward)}
        unknown = cost is None and not step.done and hasattr(step.task, "rehearse")
        rows.append(
            {"task": label(step.task), "digest": digest(step.task), "done": step.done, "unknown": unknown} | told
        )
    missing = [row for row in rows if not row["done"]]
    untried = [row for row in missing if row["unknown"]]
    total = {key: sum(row.get(key, 0) for row in missing) for key in ("seconds", "forward", "backward", "gpu_hours")}
    if common.json:
        known = None if untried or not timing else total["seconds"]
        common.say({"study": name, "scale": scale, "tasks": rows, "missing_seconds": known, "missing": total})
        return
    print(f"{name} at scale {scale}: {len(rows) - len(missing)} of {len(rows)} tasks done")
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("state", no_wrap=True)
    for heading in ("forward", "backward", "here", "GPU h") if timing and missing else ():
        grid.add_column(heading, no_wrap=True, justify="right")
    grid.add_column("task", overflow="fold")
    for row in rows:
        state = "[green]done[/green]" if row["done"] else "missing"
        grid.add_row(state, *(_costs(row) if timing and missing else ()), str(row["task"]))
    if timing and missing:
        grid.add_row("in all", *_costs(total), f"{len(missing)} tasks that are missing")
    screen().print(grid)
    if timing and missing:
        print(
            "Estimated from a few steps of each task, at full strength of any attack. Passes are images passed through "
            f"the network. GPU hours are assumed, not measured: {GPU_FLOPS:.0e} operations a second in float32, "
            f"at least {1e6 * GPU_LAUNCH:.0f} microseconds for each operation that is launched."
        )
    if untried:
        print(
            f"{len(untried)} tasks could not be tried, so the sum leaves them out: their images are not here "
            "(--data-root, or PELLUCID_DATA), or a result that they start from is not made yet."
        )


def _costs(row: dict[str, Any]) -> tuple[str, ...]:
    if "seconds" not in row:
        return ("", "", "not known" if row.get("unknown") else "", "")
    passes = (f"{row[way]:,.0f}" if row[way] < 1e6 else f"{row[way] / 1e6:,.1f} M" for way in ("forward", "backward"))
    return (*passes, _time(row["seconds"]), f"{row['gpu_hours']:.2f}")


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
