"""Clean image, adversarial image, difference and maps, two images a network."""

import torch
from torch import Tensor

from pellucid.report import Gallery, GalleryRow, Picture, Section
from pellucid.report.pairs import STATES, image_pictures, map_pictures
from pellucid.spec import fraction, name_of
from pellucid.studies.ross2018_page.source import Source
from pellucid.studies.ross2018_tables import interpreter_title


def section(source: Source) -> Section:
    """Return the section: one gallery for all networks that have the same maps."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for label, task in source.explained.items():
        kinds.setdefault(tuple(interpreter_title(i) for i in task.interpreters), []).append(label)
    return Section(
        "What an attack changes, and what the maps make of it",
        "Two test images per network: the first that it classifies right and the attack turns, and the "
        "first that stays right. The percentage is the network's confidence in its answer; the difference "
        "is drawn in its own scale, stated beneath.\n\n"
        "Maps colour the pixels that matter. Gradients: a red pixel raises the score as it grows brighter, "
        "a blue one lowers it; the score is the cross-entropy of the true class (red speaks against the "
        "class) or the certainty term of the paper's Figure 6, the sum of all log-probabilities (red makes "
        "the network less sure). CAM: red is evidence for the true class, blue against it. Each map is "
        "scaled by the 99th percentile of its own values; τ compares it with the map of the clean image.",
        tuple(_gallery(source, maps, labels) for maps, labels in kinds.items()),
    )


def _gallery(source: Source, maps: tuple[str, ...], labels: list[str]) -> Gallery:
    attack = source.explained[labels[0]].attack
    whose = "The paper's networks" if labels[0] in source.labels else "Small networks, which can have CAMs"
    return Gallery(
        f"{whose}, attacked by {name_of(attack).upper()} (eps {fraction(attack.eps)}, {attack.steps} steps)",
        tuple(row for label in labels for row in _rows(source, label)),
        ("clean", "adversarial", "difference", *(f"{name}, {state}" for name in maps for state in STATES)),
    )


def _rows(source: Source, label: str) -> list[GalleryRow]:
    task = source.explained[label]
    maps = source.result(task).tensors("maps.safetensors")
    classes = source.result(task.network).json("config.json")["classes"]
    rows = []
    for row, fooled in examples(maps):
        titles = [interpreter_title(interpreter) for interpreter in task.interpreters]
        pictures = (*image_pictures(maps, row, classes), *map_pictures(maps, row, titles))
        linked = tuple(Picture(**vars(picture) | {"settings": source.cite(task)}) for picture in pictures)
        note = f"true class {classes[int(maps['labels'][row])]}, {'fooled' if fooled else 'not fooled'}"
        rows.append(GalleryRow(label, linked, note))
    return rows


def examples(maps: dict[str, Tensor]) -> list[tuple[int, bool]]:
    """Return the first image that the attack turns and the first that it does not, of those classified right."""
    right = maps["probabilities_clean"].argmax(1) == maps["labels"]
    turned = maps["probabilities_adversarial"].argmax(1) != maps["labels"]
    first = ((torch.nonzero(right & (turned == fooled)).flatten().tolist()[:1], fooled) for fooled in (True, False))
    return [(row, fooled) for rows, fooled in first for row in rows]
