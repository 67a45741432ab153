"""Contact sheets of an explanation: image, prediction, a map per interpreter and class, clean above adversarial."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.explain import Explanation
from pellucid.metrics import stability
from pellucid.report.content import Cell, Gallery, GalleryRow, Picture, Report, Section, Settings, Table
from pellucid.report.pairs import STATES, image_pixels, map_pixels

SIDE = 168  # pixels of the longer side of a picture; larger images are shown smaller

TERMS = (
    (
        "map",
        "where the score of a class comes from. Red speaks for the class, blue against it; in a gradient, red is "
        "where the score rises as the pixel grows brighter. Each map has a scale of its own: the 99th percentile "
        "of its values",
    ),
    ("under a map", "the class that the map speaks for, and its probability in this image"),
)
RIGHT = ("✓ ✗", "the prediction is the true class, or is not")
TAU = ("τ", "Kendall's rank correlation of the raw map with that of the clean image, same class: 1 is unchanged")


def maps_of(found: Explanation, images: Sequence[str] = (), limit: int = 16, across: int = 6) -> tuple[Gallery, ...]:
    """Return the maps of up to `limit` images as galleries of up to `across` maps side by side.

    Rows are images, after an attack two each: clean, adversarial with tau. Columns are interpreters and, inside,
    classes. `images` are titles of the images.
    """
    columns = [(name, place) for name in found.maps for place in range(len(found.classes))]
    if found.images.shape[-1] > 112:
        across = max(1, across - 2)  # such pictures are drawn larger
    rows = range(min(limit, len(found.images)))
    states = STATES if found.adversarial is not None else STATES[:1]
    parts = [columns[start : start + across] for start in range(0, max(len(columns), 1), across)]
    return tuple(
        Gallery(
            _caption(found, number, len(parts)),
            tuple(_row(found, row, state, part, images) for row in rows for state in states),
            ("image", *(_column(found, name, place) for name, place in part)),
            _notes(found, rows),
        )
        for number, part in enumerate(parts, 1)
    )


def changes_of(found: Explanation, images: Sequence[str] = (), limit: int = 16) -> Gallery:
    """Return what an attack changed: clean, adversarial, difference of up to `limit` images."""
    assert found.adversarial is not None
    rows = []
    for row in range(min(limit, len(found.images))):
        change = _shown((found.adversarial[row] - found.images[row])[None])[0]
        pictures = (*(_image(found, row, state, state) for state in STATES),
                    Picture("difference", image_pixels(change), "difference"))  # fmt: skip
        rows.append(GalleryRow(_title(images, row), pictures, _truth(found, row)))
    return Gallery("Clean and adversarial images", tuple(rows), (*STATES, "difference"))


def stability_table(found: Explanation) -> Table:
    """Return the mean tau by interpreter and class, over the images whose prediction stayed and over all."""
    assert found.kept is not None
    rows: list[tuple[Cell | str, ...]] = []
    for name, tau in found.tau.items():
        for place in range(len(found.classes)):
            everyone = stability(tau[:, place], torch.ones_like(found.kept))
            kept = stability(tau[:, place], found.kept)
            cells = (Cell(s.tau.value, s.tau.low, s.tau.high, style="decimals") for s in (kept, everyone))
            rows.append((_words(name), _class(found, place), *cells, Cell(kept.kept), Cell(everyone.undefined)))
    header = ("interpreter", "class", "τ, prediction kept", "τ, all images", "images kept", "τ undefined")
    return Table("How stable the maps are", header, tuple(rows), ("Mean τ with 95 % bootstrap intervals.",))


def page(
    found: Explanation,
    title: str,
    subtitle: str = "",
    images: Sequence[str] = (),
    settings: tuple[Settings, ...] = (),
    facts: tuple[tuple[str, str], ...] = (),
    limit: int = 16,
) -> Report:
    """Return the whole page: maps, and after an attack what it changed and how stable the maps are."""
    shown = min(limit, len(found.images))
    text = "" if shown == len(found.images) else f"The first {shown} of {len(found.images)} images."
    decided = "\n\n".join(f"Decided: {said}." for said in found.decisions)
    sections = [Section("Maps", "\n\n".join(filter(None, (text, decided))), maps_of(found, images, limit))]
    if found.adversarial is not None:
        if found.tau:
            sections.append(Section("Stability", blocks=(stability_table(found),)))
        sections.append(Section("What the attack changed", blocks=(changes_of(found, images, limit),)))
    terms = (
        *TERMS,
        *((RIGHT,) if found.labels is not None else ()),
        *((TAU,) if found.adversarial is not None else ()),
    )
    return Report(title, subtitle, facts=facts, terms=terms, sections=tuple(sections), settings=settings)


def _row(
    found: Explanation, row: int, state: str, columns: Sequence[tuple[str, int]], images: Sequence[str]
) -> GalleryRow:
    pictures = [_image(found, row, state, "image")]
    maps, scores = (found.maps, found.probabilities) if state == "clean" else _attacked(found)
    size = (pictures[0].pixels.shape[0], pictures[0].pixels.shape[1])
    for name, place in columns:
        target = int(found.targets[row, place])
        pictures.append(
            Picture(
                _column(found, name, place),
                map_pixels(_shown(maps[name][row, place][None])[0], size),
                "signed",
                found.names[target],
                float(scores[row, target]),
                tau=None if state == "clean" else float(found.tau[name][row, place]),
            )
        )
    note = "" if found.adversarial is None else state
    return GalleryRow(_title(images, row), tuple(pictures), ", ".join(filter(None, (note, _truth(found, row)))))


def _image(found: Explanation, row: int, state: str, caption: str) -> Picture:
    images, scores = (
        (found.images, found.probabilities) if state == "clean" else (found.adversarial, _attacked(found)[1])
    )
    assert images is not None
    sure, guess = scores[row].max(0)
    right = None if found.labels is None else int(guess) == int(found.labels[row])
    pixels = image_pixels(_shown(images[row][None])[0])
    return Picture(caption, pixels, "image", found.names[int(guess)], float(sure), right)


def _attacked(found: Explanation) -> tuple[dict[str, Tensor], Tensor]:
    assert found.probabilities_adversarial is not None
    return found.maps_adversarial, found.probabilities_adversarial


def _shown(pixels: Tensor) -> Tensor:
    """Return (N, C, H, W) or (N, h, w) no larger than a screen shows it; a page of photographs would be huge."""
    larger = max(pixels.shape[-2:]) / SIDE
    if larger <= 1:
        return pixels
    size = [max(1, math.ceil(side / larger)) for side in pixels.shape[-2:]]
    if pixels.ndim == 4:
        return functional.interpolate(pixels.float(), size=size, mode="area")
    return functional.interpolate(pixels[:, None].float(), size=size, mode="area")[:, 0]


def _caption(found: Explanation, part: int, parts: int) -> str:
    classes = [_class(found, place) for place in range(len(found.classes))]
    what = f"Maps for {', '.join(classes)}" if found.maps else "Predictions"
    return what + (f", part {part} of {parts}" if parts > 1 else "")


def _notes(found: Explanation, rows: range) -> tuple[str, ...]:
    constant = {
        name: sum(int((maps[row].flatten(1).amax(1) == maps[row].flatten(1).amin(1)).sum()) for row in rows)
        for name, maps in found.maps.items()
    }
    return tuple(
        f"Clean maps by {_words(name)} that are constant, so that nothing is seen and τ is not defined: {count}."
        for name, count in constant.items()
        if count
    )


def _column(found: Explanation, name: str, place: int) -> str:
    return _words(name) + (f": {_class(found, place)}" if len(found.classes) > 1 else "")


def _class(found: Explanation, place: int) -> str:
    word = found.classes[place]
    spoken = {"true": "true class", "predicted": "predicted class", "runner_up": "runner-up",
              "least_likely": "least likely class"}  # fmt: skip
    return spoken.get(word, f"class {word}")


def _words(name: str) -> str:
    method, space, fields = name.partition(" ")
    return {"cam": "CAM", "grad_cam": "GradCAM"}.get(method, method.replace("_", " ")) + space + fields


def _title(images: Sequence[str], row: int) -> str:
    return images[row] if row < len(images) else f"image {row}"


def _truth(found: Explanation, row: int) -> str:
    return "" if found.labels is None else f"true class {found.names[int(found.labels[row])]}"
