"""Decoding: encoded images become 8-bit pixels of one mode and one size."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pellucid.errors import DataError

Fit = Literal["stretch", "crop", "centre"]
GREY = ("1", "L")
ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held; from 5 on, sides are swapped


@dataclass(frozen=True)
class Form:
    """What every image of a set is turned into: channels (1 or 3), height and width.

    `resize` False means that images of another size are refused. fit="stretch" scales both sides,
    "crop" scales the shorter side and takes the centre, "centre" takes the largest centre of the size's proportions and
    scales that; all bilinearly. `shown` takes images as viewers show
    them: turned as their EXIF data say, transparent pixels on white. Without it, as data sets are read, pixels
    stay as they are stored, whatever their transparency.
    """

    channels: int
    size: tuple[int, int]
    resize: bool = False
    fit: Fit = "stretch"
    shown: bool = False


def open_image(data: bytes | None, where: str) -> Image.Image:
    """Return the image, its header read; raise DataError that names it if it cannot be opened."""
    try:
        return Image.open(io.BytesIO(data or b""))
    except Exception:  # Pillow's readers raise whatever their parsing stumbles over
        raise DataError(f"{where} is not a readable image; fetch it again or take it out") from None


def decode(data: bytes | None, form: Form, where: str) -> NDArray[np.uint8]:
    """Return one image as pixels (C, H, W); raise DataError if it is unreadable or of another size."""
    image = open_image(data, where)
    height, width = form.size
    if is_deep(image):
        raise DataError(f"{where} has more than 8 bits per value (mode {image.mode}): convert it to 8 bits")
    found = shown_size(image) if form.shown else (image.height, image.width)
    if not form.resize and found != form.size:
        raise DataError(
            f"{where} is {found[0]}x{found[1]}, others are {height}x{width}: "
            "load them as a folder with size=HEIGHT,WIDTH"
        )
    try:
        image = as_shown(image) if form.shown else image
        image = image.convert("L" if form.channels == 1 else "RGB")
        if form.resize:
            image = fitted(image, height, width, form.fit)
    except Exception:  # as above
        raise DataError(f"{where} is truncated or corrupt; fetch it again or take it out") from None
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def is_deep(image: Image.Image) -> bool:
    """Say whether an image has more than 8 bits per value."""
    return image.mode.startswith(("I", "F"))


def too_small(image: Image.Image, least: int) -> str | None:
    """Return why an image cannot be used if one of its sides is below `least`, else None; only its header is read."""
    return f"{image.height}x{image.width}, smaller than {least}" if min(image.size) < least else None


def fault(data: bytes | None) -> str | None:
    """Return why an image cannot be read, None if it can: it is read to its end, JPEG at an eighth of its size."""
    try:
        image = Image.open(io.BytesIO(data or b""))
        if is_deep(image):
            return f"more than 8 bits per value (mode {image.mode})"
        image.draft("L", (1, 1))
        image.load()
    except Exception as error:  # as above
        return f"not readable: {type(error).__name__}"
    return None


def orientation(image: Image.Image) -> int:
    """Return the orientation in an image's EXIF data, 1 (upright) to 8; 1 if there is none or it is unreadable."""
    try:
        held = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF data are no reason to refuse an image; a broken image is refused when decoded
        return 1
    return held if held in range(1, 9) else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width of an image as viewers show it."""
    return (image.width, image.height) if orientation(image) >= 5 else (image.height, image.width)


def as_shown(image: Image.Image) -> Image.Image:
    """Return an image as viewers show it: turned as its EXIF data say, transparent pixels on white."""
    if orientation(image) > 1:
        image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def fitted(image: Image.Image, height: int, width: int, fit: Fit) -> Image.Image:
    """Return the image at the given size; fit="crop" and "centre" keep its proportions and take the centre."""
    if image.size == (width, height):
        return image
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    if fit == "centre":
        share = min(image.width / width, image.height / height)
        inner = (max(1, round(width * share)), max(1, round(height * share)))
        left, top = (image.width - inner[0]) // 2, (image.height - inner[1]) // 2
        centre = image.crop((left, top, left + inner[0], top + inner[1]))
        return centre.resize((width, height), Image.Resampling.BILINEAR)
    scale = max(width / image.width, height / image.height)
    inner = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (inner[0] - width) // 2, (inner[1] - height) // 2
    return image.resize(inner, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def decode_rows(column: Any, rows: Tensor, form: Form, where: Sequence[str]) -> Tensor:
    """Return pixels uint8 (N, C, H, W) of some rows of an Arrow column of encoded images."""
    pixels = np.empty((len(rows), form.channels, *form.size), dtype=np.uint8)
    for place, row in enumerate(rows.tolist()):
        pixels[place] = decode(column[row].as_py(), form, name_of_row(where, row))
    return torch.from_numpy(pixels)


def name_of_row(where: Sequence[str], row: int) -> str:
    """Return how an error names an image: its file where each has one, else its number in the split."""
    return where[row] if len(where) > 1 else f"image {row} of {where[0]}"


def all_grey(column: Any, rows: Tensor, where: Sequence[str]) -> bool:
    """Say whether these images of an Arrow column are all grey; only headers are read."""
    return all(open_image(column[row].as_py(), name_of_row(where, row)).mode in GREY for row in rows.tolist())
