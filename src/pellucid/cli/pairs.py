"""What `attack` and `explain` share: pictures of clean and adversarial images and of their maps."""

from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.cli.common import export
from pellucid.interpreters.heatmap import reduce_channels, resize, scale
from pellucid.report import Gallery, GalleryRow, Picture, to_png
from pellucid.spec import name_of
from pellucid.store import Result


def gallery(
    maps: dict[str, Tensor], interpreters: tuple[Any, ...], classes: list[str], attacked: bool, limit: int
) -> Gallery:
    """Return a contact sheet: image, prediction, maps; clean beside adversarial with tau between the maps."""
    rows = tuple(_row(maps, interpreters, classes, attacked, row) for row in range(min(limit, len(maps["labels"]))))
    return Gallery("Maps of the true class" if interpreters else "Clean and adversarial images", rows)


def _row(
    maps: dict[str, Tensor], interpreters: tuple[Any, ...], classes: list[str], attacked: bool, row: int
) -> GalleryRow:
    true = int(maps["labels"][row])
    pictures = []
    for state in ("clean", "adversarial") if attacked else ("clean",):
        confidence, guess = maps[f"probabilities_{state}"][row].max(0)
        pixels = _hwc(maps[state][row])
        pictures.append(Picture(state, pixels, "image", classes[int(guess)], float(confidence), int(guess) == true))
        for number, interpreter in enumerate(interpreters):
            raw = reduce_channels(maps[f"maps_{number}_{state}"][row : row + 1])
            size = (maps["clean"].shape[2], maps["clean"].shape[3])
            shown = resize(raw, size) if tuple(raw.shape[1:]) != size else raw
            tau = float(maps[f"tau_{number}"][row]) if state == "adversarial" else None
            pictures.append(
                Picture(f"{name_of(interpreter)}, {state}", scale(shown).maps[0].numpy(), "signed", tau=tau)
            )
    if attacked:
        pictures.append(Picture("difference", _hwc(maps["adversarial"][row] - maps["clean"][row]), "difference"))
    return GalleryRow(f"true class {classes[true]}", tuple(pictures))


def _hwc(pixels: Tensor) -> Any:
    return (pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)).numpy()


def deliver(result: Result, name: str, sheet: Gallery, out: Path) -> Path:
    """Write the contact sheet and the arrays to a folder and return the sheet's path."""
    export(
        out, {f"{name}.png": to_png(sheet), f"{name}.safetensors": (result.folder / "maps.safetensors").read_bytes()}
    )
    return (out / f"{name}.png").resolve()
