"""The snow attack."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pellucid.attacks.objective import Loss, Size
from pellucid.attacks.unforeseen import Effect, Form, Unforeseen, check_grey_or_rgb
from pellucid.protocols import TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, register

BUDGET = 0.2  # mean intensity that a block of flakes may have
BLOCK = 8  # flakes along the side of a block
_DIM = 1e-9  # the least intensity
_SIDE = 13  # of a flake's picture
_SPACING = 4  # pixels between the flakes of a grid
_GRIDS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0))  # where each of the seven grids begins
_ENDS = tuple(range(_SIDE // 2 + 2, _SIDE))  # of a flake's line, down and across
_WIDTHS = (1, 3, 5)  # drawn with probability 0.6, 0.3, 0.1
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)


@register("attack", "snow")
@dataclass(frozen=True, kw_only=True)
class Snow(Unforeseen):
    """Snow flakes whose brightness is chosen by the attack.

    x' = clip(0.75 x + 0.25 max(x, 1.5 l + 0.5) + eps s, 0, 1), l the luminance of x. The snow s is the sum of seven
    grids of flakes, one every 4 pixels (offset by 0..3 columns, and by 1..3 rows), of brightness I^4, each grid
    convolved with its own picture of a flake: an anti-aliased line through the middle of 13x13 pixels, blurred
    (direction, width and blur are random; all seven are mirrored with probability 1/2).
    I <- limit(I + step_size sign(grad_I L)), limit: clip to [1e-9, 1], then scale every block of 8x8 flakes of a grid
    whose mean exceeds 0.2 down to 0.2. I starts at exp(-u / 0.2), u uniform in [0, 1], limited.

    x (N, 1 or 3, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. eps is in units of [0, 1], step_size in
    units of I; None means eps / sqrt(steps), Boopathy et al.'s choice. The snow is always random at the start. At
    eps = 0 the image is not itself: it is brightened, as above.
    form="code" does what the released code does: it takes the gradient before the limit, and the start and the last
    step are never limited. Raises InputError for images outside [0, 1], for other than 1 or 3 channels, and for labels
    out of range.
    Source: Kang et al. 2019 and their released code; Boopathy et al. 2020, Table 2 (eps, steps, step size).
    Deviations: every image has flakes of its own, the released code draws seven per batch; where a side
    is no multiple of 4 pixels, flakes lie beyond its end too; where it is none of 32, the last blocks are smaller (the
    released code leaves flakes there unlimited: at 28 pixels all).
    """

    eps: Size = 2.0
    step_size: Size | None = None
    steps: Count = 200
    loss: Loss = "cross_entropy"
    target: TargetRule | None = None
    form: Form = "paper"

    monotone = False  # the limit may take back more than a step gave

    def effect(self, x: Tensor, rng: Stream) -> Effect:
        """Return the snow over images x."""
        check_grey_or_rgb(x, "snow")
        size, step, number = (x.shape[2], x.shape[3]), self._step(self.eps), itertools.count()
        pale, flakes = paled(x), on_grids(random_flakes(x, rng.child("flakes")))
        count = [-(-side // _SPACING) for side in size]
        start = torch.exp(rng.child("intensities").uniform(x, (len(_GRIDS), *count)) / -BUDGET)

        def render(intensities: Tensor, rows: Tensor) -> Tensor:
            return (pale[rows] + self.eps * snowfall(intensities, flakes[rows], size)).clamp(0, 1)

        def move(intensities: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            return limit(intensities + step * torch.sign(slope))

        def released(intensities: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            # I^4 is differentiated where I is limited already, and so positive.
            up = torch.sign(slope) * torch.sign(intensities)
            return (intensities if next(number) == 0 else limit(intensities)) + step * up

        return Effect(start, render, released) if self.form == "code" else Effect(limit(start), render, move)


def paled(x: Tensor) -> Tensor:
    """Return images (N, 1 or 3, H, W) as they look under a snowy sky."""
    shares = torch.tensor(_BRIGHTNESS if x.shape[1] == 3 else (1.0,), dtype=x.dtype, device=x.device)
    luminance = (x * shares.view(-1, 1, 1)).sum(1, keepdim=True)
    return 0.75 * x + 0.25 * torch.maximum(x, 1.5 * luminance + 0.5)


def limit(intensities: Tensor) -> Tensor:
    """Return intensities (N, 7, h, w) in [1e-9, 1], no 8x8 block of a grid brighter than 0.2 on average."""
    intensities = intensities.clamp(_DIM, 1)
    height, width = intensities.shape[2:]
    means = functional.avg_pool2d(intensities, BLOCK, ceil_mode=True, count_include_pad=False)
    scale = (BUDGET / means).clamp(max=1).repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    return intensities * scale[:, :, :height, :width]


@functools.cache
def _lines() -> NDArray[np.float64]:
    """Return all lines that a flake can be before it is blurred: (end down, end across, width, 13, 13).

    A line of width w runs from the middle m to (m + dr, m + dc). Along its flatter axis, here columns j, a pixel of
    row i is covered by clip(1 + w'/2 - |i - m - (dr/dc) (j - m)|, 0, 1), w' = w sqrt(1 + |dr/dc|) / 2; rows above
    the middle are left out, and the whole is completed by its point reflection.
    """
    middle = _SIDE // 2
    rows, columns = np.mgrid[-middle : middle + 1, -middle : middle + 1].astype(np.float64)
    lines = np.zeros((len(_ENDS), len(_ENDS), len(_WIDTHS), _SIDE, _SIDE))
    for (a, down), (b, across), (c, width) in itertools.product(enumerate(_ENDS), enumerate(_ENDS), enumerate(_WIDTHS)):
        dr, dc = down - middle, across - middle
        i, j = (rows, columns) if dc >= dr else (columns, rows)
        slope, last = min(dr, dc) / max(dr, dc), max(dr, dc)
        half = width * np.sqrt(1 + slope) / 4
        half_line = np.clip(1 + half - np.abs(i - slope * j), 0, 1) * ((i >= 0) & (j >= 0) & (j <= last))
        lines[a, b, c] = np.maximum(half_line, half_line[::-1, ::-1])
    return lines


def random_flakes(x: Tensor, rng: Stream) -> Tensor:
    """Return seven random pictures of flakes per image, (N, 7, 13, 13)."""
    grids = (len(_GRIDS),)
    down, across = (rng.child(name).words(x, grids).remainder(len(_ENDS)) for name in ("down", "across"))
    tenth = rng.child("width").words(x, grids).remainder(10)
    width = (tenth >= 6).long() + (tenth >= 9).long()
    lines = torch.tensor(_lines(), dtype=x.dtype, device=x.device)[down, across, width]
    mirrored = rng.child("mirror").words(x, ()).remainder(2).bool()
    lines = torch.where(mirrored.view(-1, 1, 1, 1), lines.flip(3), lines)
    return blurred(lines, 0.41 + 0.19 * rng.child("blur").uniform(x, grids))


def blurred(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Return pictures (N, M, a, b) blurred by 3x3 Gaussians of standard deviation sigma (N, M), zeros outside."""
    beside = torch.exp(-0.5 / sigma**2)[..., None, None]
    total = 1 + 2 * beside
    wide = functional.pad(pictures, (1, 1, 1, 1))
    rows = wide[..., 1:-1, :] + beside * (wide[..., :-2, :] + wide[..., 2:, :])
    return (rows[..., 1:-1] + beside * (rows[..., :-2] + rows[..., 2:])) / total**2


def on_grids(flakes: Tensor) -> Tensor:
    """Return flakes (N, 7, 13, 13) as columns (N, 256, 7) of 16x16 pixels, each where its grid begins."""
    room = _SPACING - 1
    placed = [
        functional.pad(flakes[:, k], (column, room - column, row, room - row)) for k, (row, column) in enumerate(_GRIDS)
    ]
    return torch.stack([picture.flatten(1) for picture in placed], 2)


def snowfall(intensities: Tensor, flakes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the snow (N, 1, H, W) of intensities (N, 7, ceil(H/4), ceil(W/4)) and flakes from `on_grids`.

    Every flake is drawn where it lies and the drawings are added: one sixteenth of the work of a convolution over all
    pixels, of which one in sixteen has a flake of a grid. A flake is its own point reflection.
    """
    height, width = size
    margin, side = _SIDE // 2, _SIDE + _SPACING - 1
    drawn = flakes @ intensities.pow(4).flatten(2)
    rows, columns = (_SPACING * n + side - _SPACING for n in intensities.shape[2:])
    sky = functional.fold(drawn, (rows, columns), kernel_size=side, stride=_SPACING)
    return sky[:, :, margin : margin + height, margin : margin + width]
