"""Images, differences and maps as pictures, and what is written under them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pellucid.report.content import Picture
from pellucid.report.looks import coloured
from pellucid.report.numbers import decimals, missing, number, percent

_MARKS = {"right": "\u00a0✓", "wrong": "\u00a0✗"}


def pixels(picture: Picture) -> NDArray[np.uint8]:
    """Return the picture as it is seen, (H, W) or (H, W, 3) bytes."""
    values = np.asarray(picture.pixels, float)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if picture.kind == "difference":
        values = values / full_scale(picture)
        if values.ndim == 3:  # grey where nothing changed, each channel up or down from there
            return _bytes((np.clip(values, -1, 1) + 1) / 2)
        return coloured(values, signed=True)
    if picture.kind == "image":
        return _bytes(values)
    if values.ndim == 3:
        values = values.sum(2)
    return coloured(values, signed=picture.kind == "signed")


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def full_scale(picture: Picture) -> float:
    """Return the change that a difference picture shows in full colour; 1 where nothing changed.

    Not below one level of 8-bit images: a change that no screen shows must not look like a large one.
    """
    if picture.scale is not None and picture.scale > 0:
        return picture.scale
    largest = float(np.nan_to_num(np.abs(np.asarray(picture.pixels, float))).max())
    return max(largest, 1 / 255) if largest > 0 else 1.0


def data_uri(picture: Picture) -> str:
    """Return the picture as a PNG inside an address, for a page that must need no other file."""
    out = io.BytesIO()
    Image.fromarray(pixels(picture)).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def lines(picture: Picture) -> list[str]:
    """Return what stands under the picture: prediction with confidence, tau, scale of a difference, further lines."""
    said = []
    if picture.label is not None:
        sure = "" if missing(picture.confidence) else f" · {percent(picture.confidence or 0.0)}"
        said.append(f"{picture.label}{sure}")
    if picture.tau is not None:
        said.append("τ undefined" if missing(picture.tau) else f"τ {decimals(float(picture.tau))}")
    if picture.kind == "difference":
        changed = bool(np.nan_to_num(np.asarray(picture.pixels, float)).any())
        said.append(f"full colour: ±{number(full_scale(picture))}" if changed else "no change")
    return [*said, *picture.said]


def marked(line: str, right: bool | None) -> str:
    """Return a line that says with a mark at its end whether a prediction is right; None leaves that open.

    >>> marked("normal", True), marked("normal", None)
    ('normal\\xa0✓', 'normal')
    """
    return line if right is None else line + _MARKS["right" if right else "wrong"]


def spoken(picture: Picture, column: str) -> list[tuple[str, str, str | None]]:
    """Return the lines under the picture with their tone, "right", "wrong" or "", and the key of their settings.

    The caption is left out where it only repeats the title of the column, and marks where the tone says the same.
    """
    own, sources = lines(picture), picture.sources or (None,) * len(picture.said)
    said = [(line, "") for line in own[: len(own) - len(picture.said)]]
    if picture.label is not None and picture.right is not None:
        said[0] = (said[0][0], "right" if picture.right else "wrong")
    if picture.caption.casefold() != column.casefold():
        said.insert(0, (picture.caption, ""))
    keys = (picture.settings, *(None,) * len(said))
    return [(*line, key) for line, key in zip(said, keys)] + [
        (*_toned(line), key) for line, key in zip(picture.said, sources)
    ]


def _toned(line: str) -> tuple[str, str]:
    """Return a line without its mark, and the tone that the mark stood for."""
    tone = next((tone for tone, mark in _MARKS.items() if line.endswith(mark)), "")
    return line.removesuffix(_MARKS.get(tone, "")), tone


def description(picture: Picture, owner: str) -> str:
    """Return the text that stands for the picture where it cannot be seen."""
    return ", ".join([f"{owner}: {picture.caption}" if owner else picture.caption, *lines(picture)])
