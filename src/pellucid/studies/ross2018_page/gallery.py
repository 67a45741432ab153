"""Clean image, adversarial image, difference and maps, two images a network."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.interpreters.heatmap import reduce_channels, resize, scale
from pellucid.report import Gallery, GalleryRow, Picture, Section
from pellucid.spec import fraction, name_of
from pellucid.studies.ross2018_page.source import Source
from pellucid.studies.ross2018_tables import interpreter_title

STATES = ("clean", "adversarial")


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
        pictures = (*_images(maps, row, classes), *_maps(task, maps, row))
        linked = tuple(Picture(**vars(picture) | {"settings": source.cite(task)}) for picture in pictures)
        note = f"true class {classes[int(maps['labels'][row])]}, {'fooled' if fooled else 'not fooled'}"
        rows.append(GalleryRow(label, linked, note))
    return rows


def examples(maps: dict[str, Tensor]) -> list[tuple[int, bool]]:
    """Return the first image that the attack turns and the first that it does not, of those classified "
    "right."""
    right = maps["probabilities_clean"].argmax(1) == maps["labels"]
    turned = maps["probabilities_adversarial"].argmax(1) != maps["labels"]
    first = ((torch.nonzero(right & (turned == fooled)).flatten().tolist()[:1], fooled) for fooled in (True, False))
    return [(row, fooled) for rows, fooled in first for row in rows]


def _images(maps: dict[str, Tensor], row: int, classes: list[str]) -> list[Picture]:
    pictures = []
    for state in STATES:
        confidence, guess = maps[f"probabilities_{state}"][row].max(0)
        right = int(guess) == int(maps["labels"][row])
        pixels = _last_axis(maps[state][row])
        pictures.append(Picture(state, pixels, "image", classes[int(guess)], confidence=float(confidence), right=right))
    change = maps["adversarial"][row] - maps["clean"][row]
    return [*pictures, Picture("difference", _last_axis(change), "difference")]


def _maps(task: Any, maps: dict[str, Tensor], row: int) -> list[Picture]:
    size = (maps["clean"].shape[2], maps["clean"].shape[3])
    pictures = []
    for number, interpreter in enumerate(task.interpreters):
        for state in STATES:
            raw = reduce_channels(maps[f"maps_{number}_{state}"][row : row + 1])
            shown = resize(raw, size) if tuple(raw.shape[1:]) != size else raw
            tau = float(maps[f"tau_{number}"][row]) if state == "adversarial" else None
            name = f"{interpreter_title(interpreter)}, {state}"
            pictures.append(Picture(name, scale(shown).maps[0].numpy(), "signed", tau=tau))
    return pictures


def _last_axis(pixels: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)).numpy()
    return array
