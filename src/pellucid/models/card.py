"""Model cards: what a checkpoint is, how it was made and what was measured on it, for machines and for people."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from pellucid import __version__
from pellucid.errors import InputError
from pellucid.protocols import Part
from pellucid.spec import HOMES, fraction

CARD, README = "card.json", "README.md"

INTENDED_USE = (
    "Research on robust and interpretable image classifiers: to be attacked, explained and compared. It is not meant "
    "for decisions about people, or where safety depends on it."
)
_TAGS = ("image-classification", "adversarial-robustness", "interpretability")
_HARMFUL = {letter: f"\\{letter}" for letter in "\\`*[]|"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures with what they were measured on, in words.

    `attack` describes what the images were attacked with; `of` names the network if it is not the one in the folder.
    """

    figures: Mapping[str, float]
    part: Part
    on: str
    attack: Mapping[str, Any] | None = None
    of: str | None = None


def logged(
    row: Mapping[str, float], *, watched: int, attack: Mapping[str, Any] | None = None, of: str | None = None
) -> list[Measured]:
    """Sort one row of a training history by what its figures were measured on.

    `watched` is the number of validation images. "validation_..." is of these, "attacked_..." of these under `attack`,
    "training_..." and "attacked_training_..." of the batch, the rest of the loss; the learning rate is no measurement.
    Raises InputError for figures under an attack that is not described.
    """
    step = int(row["step"])
    on = {
        "validation": f"the first {watched} validation images, after step {step}",
        "training": f"the training batch of step {step}",
        "loss": f"the loss of step {step}, its images attacked or changed as the defence does",
    }
    groups: dict[tuple[str, bool], dict[str, float]] = {}
    for name, value in row.items():
        under = name.startswith("attacked_")
        if under and attack is None:
            raise InputError(f"{name} was measured under an attack: describe it (attack=to_dict(...))")
        if name.removeprefix("attacked_").startswith("training_"):
            where = "training"
        else:
            where = "validation" if under or name.startswith("validation_") else "loss"
        if name not in ("step", "learning_rate"):
            groups.setdefault((where, under), {})[name] = value
    return [
        Measured(
            figures=figures,
            part="validation" if where == "validation" else "train",
            on=on[where],
            attack=attack if under else None,
            of=of,
        )
        for (where, under), figures in groups.items()
    ]


def card(
    *,
    model: Mapping[str, Any],
    shape: Sequence[int],
    classes: Sequence[str],
    defence: Mapping[str, Any],
    data: Mapping[str, Mapping[str, Any]],
    schedule: Mapping[str, Any],
    steps: int,
    seed: int,
    measured: Iterable[Measured],
    seconds: float,
    passes: Mapping[str, int],
    versions: Mapping[str, Any],
    datasets: Sequence[str] = (),
    licence: str | None = None,
) -> dict[str, Any]:
    """Return the card of a trained network as plain JSON values.

    model, defence: their descriptions, as `to_dict` gives them; shape (C, H, W) and classes: those of the images.
    data: by part, its name, sha256, cut and number of images. schedule: the other fields of the training.
    datasets: names on the hub, where they are not those in `data`. licence: left to whoever publishes it.

    Figures that are not finite become null, entries without figures are left out, and of files and folders only the
    last part of an absolute path is kept. What was not measured is said in "limits".
    """
    entries = [_entry(each) for each in measured if each.figures]
    names = list(dict.fromkeys(str(part["name"]) for part in data.values()))
    return {
        "pellucid": __version__,
        "model": _public(model),
        "shape": list(shape),
        "classes": list(classes),
        "defence": _public(defence),
        "data": _public(data),
        "datasets": list(datasets) or names,
        "training": {"steps": steps, "seed": seed, "schedule": _public(schedule)},
        "measured": entries,
        "cost": {"wall_seconds": round(seconds, 3), "passes": dict(passes)},
        "versions": _public(versions),
        "licence": licence,
        "address": None,
        "intended_use": INTENDED_USE,
        "limits": _limits(entries, " and ".join(names) or "its training set"),
    }


def _entry(each: Measured) -> dict[str, Any]:
    figures = {name: float(value) if math.isfinite(value) else None for name, value in each.figures.items()}
    attack = None if each.attack is None else _public(each.attack)
    return {"of": each.of, "part": each.part, "on": each.on, "attack": attack, "figures": figures}


def _public(value: Any) -> Any:
    """Return plain values without the folders of the machine that they come from."""
    if isinstance(value, Mapping):
        return {key: _public(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(part) for part in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def _limits(entries: list[dict[str, Any]], data: str) -> list[str]:
    found = [entry for entry in entries if any(value is not None for value in entry["figures"].values())]
    attacks = list(dict.fromkeys(words(entry["attack"]) for entry in found if entry["attack"] is not None))
    if attacks:
        robustness = (
            f"Robustness figures hold for the named attack only ({'; '.join(attacks)}), with these settings and on "
            "these images; another or a stronger attack may fool the network far more often."
        )
    else:
        robustness = "Robustness was not measured: no figure here says what the network does under an attack."
    limits = [robustness]
    others = dict.fromkeys(entry["of"] for entry in found if entry["of"] is not None)
    limits += [f"Figures were measured on {other}, not on the network in this folder." for other in others]
    if not any(entry["part"] == "test" for entry in found):
        limits.append("Nothing was measured on test images.")
    limits.append("Whether explanations of the network are faithful or readable was not measured.")
    limits.append(f"Nothing was measured on images unlike those of {data}: other sources, corruptions, other classes.")
    return limits


def words(description: Any) -> str:
    """Write a description, as `to_dict` gives it, in a line of words.

    >>> words({"attack": "pgd", "eps": 8 / 255, "steps": 40, "target": None})
    'pgd eps=8/255 steps=40'
    """
    if isinstance(description, Mapping):
        tag = next((key for key in HOMES if isinstance(description.get(key), str)), None)
        if tag == "task":
            return f"{description[tag]} task"
        fields = [f"{key}={_inner(part)}" for key, part in description.items() if key != tag and part is not None]
        return " ".join(([description[tag]] if tag else []) + fields)
    if isinstance(description, (list, tuple)):
        return ", ".join(_inner(part) for part in description)
    return fraction(description) if isinstance(description, float) else str(description)


def _inner(value: Any) -> str:
    return f"({words(value)})" if isinstance(value, (Mapping, list, tuple)) else words(value)


def markdown(card: Mapping[str, Any]) -> str:
    """Write a card as README.md, with the front matter that the Hugging Face hub reads.

    The same card gives the same text. The code block loads the network from its folder, or from `card["address"]`
    where the card says that it lies on the hub.
    """
    channels, height, width = card["shape"]
    training, cost = card["training"], card["cost"]
    data = [
        f"{name}: {part['name']}, {part.get('images', '?')} images, {part['cut']} (sha256 {part['sha256']})"
        for name, part in card["data"].items()
    ]
    rows = [
        ("network", words(card["model"])),
        ("images", f"(N, {channels}, {height}, {width}), values in [0, 1]"),
        ("classes", _listed(card["classes"])),
        ("defence", words(card["defence"])),
        *(("data", part) for part in data),
        ("training", f"{training['steps']} steps, seed {training['seed']}"),
        *((f"training, {key}", _inner(value)) for key, value in training["schedule"].items() if value is not None),
        ("cost", f"{cost['wall_seconds']:.0f} s; {_passes(cost['passes'])}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())),
        ("licence", card["licence"] or "not chosen yet: whoever publishes the network chooses it"),
    ]
    title = f"{_named(card['model'])} trained with {_named(card['defence'])} on {', '.join(card['datasets'])}"
    lines = [
        "---",
        yaml.safe_dump(_front(card), sort_keys=False, allow_unicode=True).rstrip("\n"),
        "---",
        "",
        f"# {_safe(title)}",
        "",
        f"An image classifier trained with Pellucid {_safe(card['pellucid'])}.",
        "",
        *_code(card),
        "",
        "## How it was made",
        "",
        *_table(("what", "which"), rows),
        "",
        "## What was measured",
        "",
        *_figures(card["measured"]),
        "",
        "## Intended use",
        "",
        _safe(card["intended_use"]),
        "",
        "## Limits",
        "",
        *(f"* {_safe(limit)}" for limit in card["limits"]),
    ]
    return "\n".join(lines) + "\n"


def _front(card: Mapping[str, Any]) -> dict[str, Any]:
    figures = [name for entry in card["measured"] for name in entry["figures"]]
    return {
        **({"license": card["licence"]} if card["licence"] else {}),
        "library_name": "pellucid",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys([*_TAGS, _named(card["model"]), _named(card["defence"])])),
        "datasets": list(card["datasets"]),
        "metrics": ["accuracy"] if any("accuracy" in name for name in figures) else [],
    }


def _code(card: Mapping[str, Any]) -> list[str]:
    images = ", ".join(str(int(side)) for side in card["shape"])
    where, remark = (card["address"], "") if card["address"] else (".", "  # the folder that this file is in")
    return [
        "```python",
        "import torch",
        "from pellucid.models import load_classifier",
        "",
        f'net = load_classifier("{where}"){remark}',
        f"scores = net(torch.rand(1, {images}))  # images in [0, 1]; the network normalises them itself",
        "```",
    ]


def _figures(entries: list[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ["Nothing was measured."]
    rows = [
        (
            name,
            "not finite" if value is None else f"{value:.4g}",
            entry["on"] if entry["of"] is None else f"{entry['on']} ({entry['of']})",
            "-" if entry["attack"] is None else words(entry["attack"]),
        )
        for entry in entries
        for name, value in entry["figures"].items()
    ]
    return _table(("figure", "value", "measured on", "attacked with"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_safe(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _named(description: Mapping[str, Any]) -> str:
    return words(description).partition(" ")[0]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{len(names)}: {shown}" if len(names) <= 10 else f"{len(names)}: {shown}, ... (all in {CARD})"


def _passes(passes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in passes.items()) + " passes, one for each image"


def _safe(text: str) -> str:
    return "".join(_HARMFUL.get(letter, letter) for letter in " ".join(str(text).split()))
