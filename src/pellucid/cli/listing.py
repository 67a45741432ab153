"""pellucid list."""

import dataclasses
import inspect
from textwrap import wrap
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pellucid.cli.common import AsJson, Common, screen
from pellucid.errors import SpecError
from pellucid.spec import brief, echo

KINDS = (
    "attack", "interpreter", "visualisation", "defence", "model", "data", "augmentation", "transform", "optimiser",
    "schedule", "ramp", "average", "stop", "task", "study",
)  # fmt: skip


def list_methods(
    kind: Annotated[
        str | None,
        Parameter(
            help="attack, interpreter, visualisation, defence, model, data, augmentation, transform, optimiser, "
            "schedule, ramp, average, stop, task or study [all]."
        ),
    ] = None,
    name: Annotated[str | None, Parameter(help="One of them, to read its whole documentation.")] = None,
    /,
    *,
    json: AsJson = False,
) -> None:
    """List what there is, with fields and defaults; with a name, print its documentation."""
    common = Common(json=json)
    if kind is not None and kind not in KINDS:
        raise SpecError(f"there is no kind {echo(kind)}; known: {', '.join(KINDS)}")
    if kind is not None and name is not None:
        entry = _one(kind, name)
        if common.json:
            common.say(entry)
            return
        fields = ", ".join(f"{f['name']}={f['default']!r}" if "default" in f else f["name"] for f in entry["fields"])
        shown = Text(f"{kind} {name}({fields})\n\n{entry['documentation']}")
        screen().print(shown, soft_wrap=not screen().is_terminal)
        return
    found = {k: _entries(k) for k in (KINDS if kind is None else (kind,))}
    if common.json:
        common.say(found)
        return
    for k, rows in found.items():
        screen().print(Text(k, "bold"))
        for row in rows:
            fields = ", ".join(f"{f['name']}={f['default']}" if "default" in f else f["name"] for f in row["fields"])
            screen().print(Text(f"  {row['name']}", "bold"))
            for text, style in ((row["summary"], ""), (fields, "dim")):
                lines = wrap(text, screen().width - 4)
                screen().print(*(Text(f"    {line}", style) for line in lines), sep="\n", end="\n" if lines else "")


def _entries(kind: str) -> list[dict[str, Any]]:
    if kind == "study":
        from pellucid.studies import STUDIES

        return [
            {
                "name": name,
                "summary": _study_documentation(name).split("\n\n")[0].split(":")[0].replace("\n", " "),
                "fields": [],
                "source": "",
            }
            for name in STUDIES
        ]
    from pellucid.spec import entries, presets

    ready = [
        {"name": name, "summary": f"A name for {brief(value)}.", "fields": [], "source": ""}
        for name, value in presets(kind).items()
    ]
    return [
        {
            "name": name,
            "summary": (inspect.getdoc(cls) or "").split("\n\n")[0].partition("Source:")[0].replace("\n", " ").strip(),
            "fields": _fields(cls),
            "source": _source(inspect.getdoc(cls) or ""),
        }
        for name, cls in entries(kind)
    ] + ready


def _fields(cls: Any, ready: Any = None) -> list[dict[str, Any]]:
    """Return the fields of a class with their defaults, or with the values that a preset has."""
    from pellucid.spec import brief, kind_of, to_dict

    rows = []
    for f in dataclasses.fields(cls):
        row: dict[str, Any] = {"name": f.name}
        if ready is not None:
            held = getattr(ready, f.name)
            row["default"] = brief(held) if kind_of(held) else to_dict(held)
        elif f.default is not dataclasses.MISSING:
            row["default"] = f.default
        elif f.default_factory is not dataclasses.MISSING:
            made = f.default_factory()
            row["default"] = brief(made) if kind_of(made) else str(made)
        rows.append(row)
    return rows


def method_table() -> str:
    """Return docs/methods.md: every registered method with its fields, first sentence and source."""
    lines = [
        "# Methods",
        "",
        "Made from the registry by `PELLUCID_RENEW_DOCS=1 pytest tests/test_docs.py`; not edited by hand.",
    ]
    for kind in KINDS[:-1]:
        lines += ["", f"## {kind}", "", "| name | fields | what it is | source |", "| --- | --- | --- | --- |"]
        for row in _entries(kind):
            fields = ", ".join(f"{f['name']}={f['default']}" if "default" in f else f["name"] for f in row["fields"])
            cells = (f"`{row['name']}`", f"`{fields}`" if fields else "", row["summary"], row["source"])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _source(documentation: str) -> str:
    """Return the first sentence after "Source:", as far as the paragraph goes."""
    _, found, rest = documentation.partition("Source:")
    return " ".join(rest.split("\n\n")[0].split("Deviation")[0].split()) if found else ""


def _one(kind: str, name: str) -> dict[str, Any]:
    if kind == "study":
        from pellucid.studies import find_study

        find_study(name, "smoke")
        (entry,) = [row for row in _entries(kind) if row["name"] == name]
        return entry | {"documentation": _study_documentation(name)}
    from pellucid.spec import lookup, presets

    cls, ready = lookup(kind, name), presets(kind).get(name)
    documentation = inspect.getdoc(cls) or ""
    if ready is not None:
        documentation = f"A name for {brief(ready)}.\n\n{documentation}"
    return {"name": name, "documentation": documentation, "fields": _fields(cls, ready)}


def _study_documentation(name: str) -> str:
    from pellucid.studies import STUDIES

    return inspect.getdoc(inspect.getmodule(STUDIES[name])) or ""
