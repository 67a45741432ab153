"""Drawing scenes: a letter at a random place over a gradient, strokes and fragments of other letters.

Pillow draws, at twice the size, and reduces. Pixel values are whole numbers throughout, so that they do not
depend on how a machine adds floats.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pellucid.rng import Stream

FINE = 2  # drawn at this many times the size
ROOM = 1  # pixels that the letter keeps from the border
SPREAD = 209.0  # standard deviation of the sum of eight random bytes


def levels(stream: Stream, like: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return the grey levels (N, C) of background and letter, int64 in 0..255.

    The background has 16 to 112 in the mean, the letter 80 to 144 more; colours stray from grey by up to 36.
    """
    u = stream.uniform(_wide(like), (2 + 2 * channels,))
    stray = (72 * u[:, 2:] - 36).to(torch.int64).view(-1, 2, channels) * (channels > 1)
    back = (16 + 96 * u[:, 0]).to(torch.int64)
    letter = back + (80 + 64 * u[:, 1]).to(torch.int64)
    return (back[:, None] + stray[:, 0]).clamp(0, 255), (letter[:, None] + stray[:, 1]).clamp(0, 255)


def values(stream: Stream, back: Tensor) -> Tensor:
    """Return the values (N, C) of a piece of clutter, int64: up to 144 levels from the background, either way."""
    u = stream.uniform(_wide(back), tuple(back.shape[1:]))
    return (back + (288 * u - 144).to(torch.int64)).clamp(0, 255)


def numbers(stream: Stream, like: Tensor, n: int) -> list[list[float]]:
    """Return n uniform numbers in [0, 1) for each image, as Pillow wants them."""
    drawn: list[list[float]] = stream.uniform(_wide(like), (n,)).tolist()
    return drawn


def gradients(stream: Stream, back: Tensor, side: int) -> Tensor:
    """Return backgrounds (N, FINE side, FINE side, C) uint8 that rise by up to 48 levels along each axis."""
    size = FINE * side
    slope = (96 * stream.uniform(_wide(back), (2,)) - 48).to(torch.int64)
    place = 2 * torch.arange(size) - size + 1  # twice the distance from the middle
    rise = slope[:, 0, None, None] * place + slope[:, 1, None, None] * place[:, None]
    return (back[:, None, None, :] + torch.div(rise, 2 * size, rounding_mode="floor")[..., None]).clamp(0, 255).byte()


def noisy(stream: Stream, pixels: Tensor, noise: float) -> Tensor:
    """Return uint8 pixels (N, C, H, W) with nearly normal noise (sums of eight bytes) of std `noise` * 255."""
    words = stream.words(pixels, tuple(pixels.shape[1:]))
    bytes_ = 0x00FF00FF00FF00FF
    total = (((words & bytes_) + ((words >> 8) & bytes_)) * 0x0001000100010001 >> 48) & 0xFFFF
    scale = round(noise * 255 / SPREAD * 4096)
    return (pixels + (((total - 1020) * scale + 2048) >> 12)).clamp(0, 255).byte()


def letter(stamp: Image.Image, side: int, u: Sequence[float]) -> Image.Image:
    """Return the ink (side, side) of a stamp that was turned, sheared, scaled and placed by the numbers u (5,).

    Turned by up to 10 degrees, sheared by up to 0.1, 0.6 to 0.9 of the side high, wholly inside the image.
    """
    size = FINE * side
    turn, shear = math.radians(20 * u[0] - 10), 0.2 * u[1] - 0.1
    c, s = math.cos(turn), math.sin(turn)
    across, along = (c, c * shear - s), (s, s * shear + c)  # rows of rotation times shear
    width, height = stamp.size
    reach = [(abs(a) * width + abs(b) * height) / 2 for a, b in (across, along)]
    scale = min(size * (0.6 + 0.3 * u[2]) / height, (size / 2 - FINE * ROOM) / max(reach))
    middle = [scale * r + FINE * ROOM + (size - 2 * (scale * r + FINE * ROOM)) * v for r, v in zip(reach, u[3:5])]
    inverse = (along[1] / scale, -across[1] / scale, -along[0] / scale, across[0] / scale)  # determinant 1
    return _resampled(stamp, (size, size), inverse, middle).reduce(FINE)


def _resampled(
    stamp: Image.Image, size: tuple[int, int], inverse: tuple[float, float, float, float], middle: Sequence[float]
) -> Image.Image:
    """Return the stamp seen through a map from output to input pixels that takes `middle` to its centre."""
    a, b, d, e = inverse
    x, y = stamp.width / 2, stamp.height / 2
    data = (a, b, x - a * middle[0] - b * middle[1], d, e, y - d * middle[0] - e * middle[1])
    return stamp.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def clutter(canvas: Image.Image, stamp: Image.Image, value: tuple[int, ...], u: Sequence[float]) -> None:
    """Draw one piece by the numbers u (8,): a fragment of the stamp, a stroke or an arc, of one value."""
    size = canvas.width
    fill = value if len(value) > 1 else value[0]
    x, y = (round(-0.1 * size + 1.2 * size * v) for v in u[1:3])
    thick = max(1, round(size * (0.03 + 0.06 * u[3])))
    if u[0] < 0.6:
        _fragment(canvas, stamp, fill, (x, y), u[3:])
    elif u[0] < 0.8:
        angle, length = math.pi * u[4], size * (0.1 + 0.25 * u[5])
        end = (x + round(length * math.cos(angle)), y + round(length * math.sin(angle)))
        ImageDraw.Draw(canvas).line(((x, y), end), fill=fill, width=thick)
    else:
        radius, start = round(size * (0.08 + 0.15 * u[4])), 360 * u[5]
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(canvas).arc(box, start, start + 60 + 150 * u[6], fill=fill, width=thick)


def _fragment(
    canvas: Image.Image, stamp: Image.Image, fill: int | tuple[int, ...], place: tuple[int, int], u: Sequence[float]
) -> None:
    """Paste a window into the stamp, turned at will, that shows less than half of it."""
    size = canvas.width
    scale = size * (0.5 + 0.35 * u[0]) / stamp.height
    c, s = math.cos(2 * math.pi * u[1]) / scale, math.sin(2 * math.pi * u[1]) / scale
    window = tuple(max(2, round(size * (0.12 + 0.16 * v))) for v in u[2:4])
    # The window lies on a side of the letter, a quarter of its size from the middle: most letters are recognised there.
    shift = 0.25 * scale * stamp.height
    middle = [w / 2 + shift * f(2 * math.pi * u[4]) for w, f in zip(window, (math.cos, math.sin))]
    ink = _resampled(stamp, (window[0], window[1]), (c, s, -s, c), middle)
    canvas.paste(fill, (place[0] - window[0] // 2, place[1] - window[1] // 2), ink)


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image as pixels (H, W, C)."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def _wide(like: Tensor) -> Tensor:
    return torch.empty((len(like), 0), dtype=torch.float64)
