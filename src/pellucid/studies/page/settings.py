"""The settings behind a number: everything that was recorded when its result was made."""

import dataclasses
import json
from typing import Any

from pellucid.report import Settings
from pellucid.spec import digest, kind_of, name_of, to_dict
from pellucid.store import Result

WIDE = 84  # letters; what fits in a line is not broken


def settings_of(task: Any, result: Result, key: str, title: str) -> Settings:
    """Return everything that was recorded behind a result."""
    meta = result.meta
    data = (
        (
            f"data, {part}",
            f"{used['name']}: {used['images']:,} images, {used['cut']}; sha256 {used['sha256']}",
        )
        for part, used in meta["data"].items()
    )
    passes = meta["passes"]
    entries = (
        ("task", f"{name_of(task)} {meta['digest']}"),
        ("description", lines(brief(task))),
        *data,
        ("seed", str(meta["seed"])),
        ("passes", f"{passes['forward']:,} images forward, {passes['backward']:,} backward"),
        ("wall time", duration(meta["wall_seconds"])),
        ("device", f"{meta['device']}, {meta['threads']} threads"),
        ("versions", ", ".join(f"{name} {version}" for name, version in meta["versions"].items())),
        ("commit", meta["commit"] or "unknown"),
        ("finished", meta["finished"]),
    )
    return Settings(key, f"{title} ({key})", entries)


def brief(value: Any, inside: bool = False) -> Any:
    """Return a description as JSON values; tasks inside it by name and digest, as the store addresses "
    "them."""
    if not kind_of(value):
        return [brief(part, True) for part in value] if isinstance(value, (tuple, list)) else to_dict(value)
    name = name_of(value)
    if inside and kind_of(value) == "task":
        return {"task": name, "digest": digest(value)[:12]}
    # fields that are not hashed say where something lies on one machine
    shown = [f.name for f in dataclasses.fields(value) if f.metadata.get("hashed", True)]
    return {kind_of(value): name} | {key: brief(getattr(value, key), True) for key in shown}


def lines(value: Any, indent: int = 0) -> str:
    """Write JSON with one line for each part that fits in one."""
    text = json.dumps(value, ensure_ascii=False)
    if indent + len(text) <= WIDE or not value or not isinstance(value, (dict, list)):
        return text
    inner, outer = "\n" + " " * (indent + 2), "\n" + " " * indent
    if isinstance(value, list):
        return "[" + inner + f",{inner}".join(lines(part, indent + 2) for part in value) + outer + "]"
    parts = (f"{json.dumps(key)}: {lines(part, indent + 2)}" for key, part in value.items())
    return "{" + inner + f",{inner}".join(parts) + outer + "}"


def duration(seconds: float) -> str:
    """Write a time as people say it.

    >>> duration(4.2), duration(93), duration(7384)
    ('4.2 s', '1 min 33 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
