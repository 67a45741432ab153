"""Letters over clutter, drawn from the fonts that matplotlib ships: a data set that knows where its objects are."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from torch import Tensor

from pellucid.data import scene
from pellucid.data.fonts import LETTERS, families, stamp
from pellucid.data.split import Split, check_part
from pellucid.data.whole import sha256_of
from pellucid.errors import DataError
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Flag, Share, Whole, register

SIZES = {"train": 10_000, "validation": 1_000, "test": 2_000}
HELD_OUT = "Computer Modern"  # the family of the test part: roman, bold, italic, sans, typewriter
AT_ONCE = 500  # images drawn before their pixels are put together


@register("data", "glyphs")
@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Letters A to J over clutter and noise, with the exact mask of every letter, drawn from matplotlib's fonts.

    Stands in for notMNIST where nothing can be fetched, and for data with ground truth for explanations: a
    map should lie on `masks`, the pixels that the letter's ink covers by more than half. 10,000 / 1,000 / 2,000
    images (N, 1, side, side), or (N, 3, side, side) with `colour`; each letter is as frequent as any other.
    The letter is turned, sheared, scaled and placed at random, lighter than the gradient below it; `clutter`
    strokes, arcs and fragments of other letters, light or dark, lie between the two; `noise` is the standard
    deviation of the noise on every value (1 is white); neither moves the letter. Letters are drawn slightly bolder
    than they are, since the masks of small ones would lack their hairlines. Train and validation share the
    families of DejaVu and STIX, test has Computer Modern alone. `train`, `validation` and `test` draw the first n
    images of a part, another `seed` draws others.
    An image depends on (seed, part, index) alone; its pixels are the same wherever Pillow and matplotlib have
    the same versions, others may draw differently, which the recorded sha256 shows. `load` raises DataError for
    an unknown part or one smaller than n. Source: none, made for this package; classes of Bulatov 2011.
    """

    side: Annotated[Whole, Ge(20), Le(128)] = 28
    colour: Flag = False
    clutter: Annotated[Whole, Le(100)] = 6
    noise: Share = 0.05
    seed: Whole = 0
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None

    def load(self, part: str) -> Split:
        """Return a part of the letters, with masks.

        >>> Glyphs(test=20).load("test").masks.shape
        torch.Size([20, 28, 28])
        """
        check_part(part)
        limit = getattr(self, part)
        if limit is not None and limit > SIZES[part]:
            raise DataError(f"the {part} part of glyphs has {SIZES[part]:,} images, {limit:,} were asked for")
        return _load(part, limit or SIZES[part], self.seed, self.side, self.colour, self.clutter, self.noise)


def fonts_of(part: str) -> tuple[Path, ...]:
    """Return the font files that a part is drawn from; raise DataError if matplotlib has none for it."""
    found = [path for name, files in families().items() if (name == HELD_OUT) == (part == "test") for path in files]
    if not found:
        raise DataError(f"matplotlib ships no fonts for the {part} part of glyphs: reinstall it with its fonts")
    return tuple(found)


@functools.lru_cache(maxsize=6)
def _load(part: str, n: int, seed: int, side: int, colour: bool, clutter: int, noise: float) -> Split:
    stream = Stream(derive(seed, "glyphs", part))
    labels = _labels(stream, n)
    pixels = torch.empty(n, 3 if colour else 1, side, side, dtype=torch.uint8)
    masks = torch.empty(n, side, side, dtype=torch.bool)
    for start in range(0, n, AT_ONCE):
        rows = torch.arange(start, min(start + AT_ONCE, n))
        pixels[rows], masks[rows] = _draw(part, stream.take(rows), labels[rows], side, colour, clutter, noise)
    words = f"drawn with seed {seed} from {_said(part)}"
    return Split(
        name="glyphs",
        part=part,
        pixels=pixels,
        labels=labels,
        classes=tuple(LETTERS),
        sha256=sha256_of(pixels, labels, masks),
        cut=words if n == SIZES[part] else f"the first {n:,} of: {SIZES[part]:,} images {words}",
        source="drawn from matplotlib's fonts",
        masks=masks,
    )


def _said(part: str) -> str:
    names = dict.fromkeys(name for name in families() if (name == HELD_OUT) == (part == "test"))
    seen = f"the fonts of {', '.join(names)} ({len(fonts_of(part))} styles)"
    return f"{seen}, which train and validation lack" if part == "test" else f"{seen}; {HELD_OUT} is kept for test"


def _labels(stream: Stream, n: int) -> Tensor:
    """Return labels (n,): every ten images in a row are the ten letters, in an order of their own."""
    blocks = torch.empty(-(-n // len(LETTERS)))
    words = stream.child("labels").words(blocks, (len(LETTERS),))
    return torch.argsort(words, dim=1, stable=True).flatten()[:n]


def _draw(
    part: str, stream: Stream, labels: Tensor, side: int, colour: bool, clutter: int, noise: float
) -> tuple[Tensor, Tensor]:
    """Return pixels (N, C, H, W) and masks (N, H, W) of the images that the stream stands for."""
    channels, em = 3 if colour else 1, scene.FINE * side
    fonts = fonts_of(part)
    back, ink = scene.levels(stream.child("levels"), labels, channels)
    canvases = scene.gradients(stream.child("gradient"), back, side).numpy()
    chosen = stream.child("font").integers(labels, len(fonts)).tolist()
    places = scene.numbers(stream.child("place"), labels, 5)
    pieces = [_piece(stream.child("clutter", i), back, len(fonts)) for i in range(clutter)]
    alpha = np.empty((len(labels), side, side, 1), dtype=np.uint8)
    below = np.empty((len(labels), side, side, channels), dtype=np.uint8)
    for i, label in enumerate(labels.tolist()):
        canvas = Image.fromarray(canvases[i] if colour else canvases[i, ..., 0])
        for other, font, value, u in (piece[i] for piece in pieces):
            shown = _stamp(fonts[font], LETTERS[(label + other) % len(LETTERS)], em)
            scene.clutter(canvas, shown, value, u)
        below[i] = scene.as_array(canvas.reduce(scene.FINE))
        alpha[i] = scene.as_array(scene.letter(_stamp(fonts[chosen[i]], LETTERS[label], em), side, places[i]))
    cover = torch.from_numpy(alpha).int()
    pixels = (torch.from_numpy(below).int() * (255 - cover) + ink[:, None, None].int() * cover + 127) // 255
    noised = scene.noisy(stream.child("noise"), pixels.permute(0, 3, 1, 2), noise)
    return noised, cover[..., 0] > 127


def _piece(stream: Stream, back: Tensor, fonts: int) -> list[tuple[int, int, tuple[int, ...], list[float]]]:
    """Return one piece of clutter for each image: how far its letter is from the image's, font, value, numbers."""
    other = 1 + stream.child("letter").integers(back, len(LETTERS) - 1)
    font = stream.child("font").integers(back, fonts)
    value = scene.values(stream.child("value"), back)
    numbers = scene.numbers(stream.child("numbers"), back, 8)
    return list(zip(other.tolist(), font.tolist(), map(tuple, value.tolist()), numbers))


@functools.lru_cache(maxsize=2048)
def _stamp(path: Path, letter: str, em: int) -> Image.Image:
    return stamp(path, letter, em)
