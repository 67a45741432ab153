"""What `attack` and `explain` share: pictures of clean and adversarial images and of their maps."""

from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.cli.common import export
from pellucid.report import Gallery, GalleryRow, to_png
from pellucid.report.pairs import STATES, image_pictures, map_pictures
from pellucid.spec import name_of
from pellucid.store import Result


def gallery(
    pairs: dict[str, Tensor], interpreters: tuple[Any, ...], classes: list[str], attacked: bool, limit: int
) -> Gallery:
    """Return a contact sheet: image, prediction, maps; clean beside adversarial with tau between the maps."""
    states, titles = STATES if attacked else STATES[:1], [name_of(interpreter) for interpreter in interpreters]
    rows = tuple(
        GalleryRow(
            f"true class {classes[int(pairs['labels'][row])]}",
            (*image_pictures(pairs, row, classes, states), *map_pictures(pairs, row, titles, states)),
        )
        for row in range(min(limit, len(pairs["labels"])))
    )
    headings = tuple(picture.caption for picture in rows[0].pictures if picture is not None) if rows else ()
    return Gallery("Maps of the true class" if interpreters else "Clean and adversarial images", rows, headings)


def deliver(result: Result, name: str, sheet: Gallery, out: Path) -> Path:
    """Write the contact sheet and the arrays to a folder and return the sheet's path."""
    export(
        out, {f"{name}.png": to_png(sheet), f"{name}.safetensors": (result.folder / "maps.safetensors").read_bytes()}
    )
    return (out / f"{name}.png").resolve()
