"""What `pellucid explain` hands over: sheet, page, arrays, and the numbers in words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.common import export

if TYPE_CHECKING:
    from pellucid.explain import Explanation
    from pellucid.metrics import Stability
    from pellucid.store import Result

_SHOWN = 50  # images on the sheet and on the page


def deliver(found: "Explanation", task: Any, result: "Result", out: Path, network: str) -> Path:
    """Write sheet, page and arrays to a folder and return the sheet's path."""
    from pellucid.report import render
    from pellucid.report.explained import maps_of, page
    from pellucid.report.sheets import stacked
    from pellucid.spec import brief
    from pellucid.studies.page.settings import settings_of
    from pellucid.tasks.explaining import EXPLAINED, MAPS
    from pellucid.tasks.training import folder_name

    names = result.json(EXPLAINED)["images"] or ()
    used = result.meta["data"][task.part]
    facts = [
        ("Images", f"{len(found.images)} of {used['name']}"),
        ("Interpreters", ", ".join(map(brief, task.interpreters))),
    ]
    facts += [("Attack", brief(task.attack))] if task.attack is not None else []
    settings = settings_of(task, result, result.meta["digest"][:8], "explain")
    report = page(
        found,
        f"{folder_name(network)}, explained",
        "Where in the image the network's decision comes from.",
        names,
        (settings,),
        tuple(facts),
        limit=_SHOWN,
    )
    files = {
        "explain.png": stacked(maps_of(found, names, limit=_SHOWN, across=12)),
        "explain.html": render(report).encode(),
        "explain.safetensors": (result.folder / MAPS).read_bytes(),
    }
    export(out, files)
    return (out / "explain.png").resolve()


def numbers(found: "Explanation", images: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Return what was found, for programs and for people."""
    from pellucid.metrics import stability
    from pellucid.tasks.attacking import warning_lines, warnings_of

    said: dict[str, Any] = {"images": len(found.images), "classes": found.classes, "interpreters": list(found.maps)}
    said |= {"decisions": found.decisions, "predictions": _predictions(found, images)}
    lines = [f"decided: {decision}" for decision in found.decisions]
    if found.labels is None:
        lines += [_sentence(row) for row in said["predictions"][:_SHOWN]]
    if found.kept is None:
        return said, lines
    said |= {"kept": int(found.kept.sum()), "warnings": warnings_of(found.notes), "tau": {}}
    lines.append(f"{said['kept']} of {len(found.images)} images kept their prediction")
    for name, tau in found.tau.items():
        said["tau"][name] = {}
        for place, word in enumerate(found.classes):
            stable = stability(tau[:, place], found.kept)
            said["tau"][name][word] = stable.tau._asdict() | {"images": stable.kept, "undefined": stable.undefined}
            lines.append(f"{name}, {word}: {_mean(stable)}")
    return said, [*lines, *warning_lines(said["warnings"])]


def _mean(stable: "Stability") -> str:
    value, low, high = stable.tau
    interval = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    said = f"tau {value:.3f}{interval} over {stable.kept} images" if stable.kept else "no image to take tau from"
    return said + (f", undefined for {stable.undefined}" if stable.undefined else "")


def _predictions(found: "Explanation", images: Sequence[str] | None) -> list[dict[str, Any]]:
    rows = []
    for row in range(len(found.images)):
        said: dict[str, Any] = {"image": images[row] if images else row}
        for key, scores in (("predicted", found.probabilities), ("adversarial", found.probabilities_adversarial)):
            if scores is not None:
                sure, guess = scores[row].max(0)
                said[key] = {"class": found.names[int(guess)], "probability": float(sure)}
        said["explained"] = [found.names[int(target)] for target in found.targets[row]]
        rows.append(said | ({} if found.labels is None else {"true": found.names[int(found.labels[row])]}))
    return rows


def _sentence(row: dict[str, Any]) -> str:
    guesses = [
        f"{row[key]['class']} {row[key]['probability']:.1%}" for key in ("predicted", "adversarial") if key in row
    ]
    name = " ".join(str(row["image"]).split())  # a file's name may hold anything
    return f"{name}: " + ", under attack ".join(guesses)
