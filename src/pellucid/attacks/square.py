"""The Square attack: random search over squares of one colour, seeing nothing but the network's scores."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks.objective import Size, attacking, label_objective, plain
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate
from pellucid.maths.balls import project
from pellucid.protocols import Norm, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Share, register

Schedule = Literal["paper", "authors"]

# After which of 10,000 proposals the share of changed pixels is halved.
_HALVINGS: dict[Schedule, tuple[int, ...]] = {
    "paper": (10, 50, 200, 1000, 2000, 4000, 6000, 8000),
    "authors": (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000),
}
_BLOCK = 32  # proposals whose random numbers are drawn at once


def share_of_pixels(schedule: Schedule, p_init: float, proposal: int, queries: int) -> float:
    """Return the share p of the image that a square covers at a proposal, counted from 1.

    paper: p_init / 2^k after the k-th of its halvings, rescaled from 10,000 to `queries`; authors: their code's
    halvings (one more, at 500), as AutoAttack runs it: not rescaled.

    >>> [share_of_pixels("paper", 0.8, i, 10_000) for i in (9, 10, 50, 8000)]
    [0.8, 0.4, 0.2, 0.003125]
    """
    if schedule == "paper":
        halvings = sum(proposal * 10_000 >= at * queries for at in _HALVINGS[schedule])
    else:
        halvings = sum(proposal - 1 > at for at in _HALVINGS[schedule])
    return p_init * 0.5**halvings


def side_of_square(norm: Norm, share: float, height: int, width: int) -> int:
    """Return the side of a square that covers a share of the image: rounded, >= 1 (l2: >= 3), inside the image."""
    return min(max(round(math.sqrt(share * height * width)), 3 if norm == "l2" else 1), height, width)


def hills(side: int, like: Tensor) -> Tensor:
    """Return eta (side, side): a hill beside a valley, of unit length.

    eta = (eta^(h,k), -eta^(h,h-k)), k = floor(h/2); eta^(h1,h2)_rs = sum_{j=0}^{M(r,s)} 1 / (n+1-j)^2, n = floor(h1/2),
    M = n - max(|r - floor(h1/2)|, |s - floor(h2/2)|), r and s from 0 (equation 2 of the paper counts from 1).
    """
    n, half = side // 2, side // 2
    terms = 1 / torch.arange(1, n + 2, device=like.device, dtype=like.dtype).square()
    heights = terms.flip(0).cumsum(0).flip(0)  # at distance d from the top: the sum of 1/m^2, m = d+1 .. n+1

    def hill(width: int) -> Tensor:
        rows = torch.arange(side, device=like.device)[:, None] - n
        columns = torch.arange(width, device=like.device)[None, :] - width // 2
        return heights[torch.maximum(rows.abs(), columns.abs())]

    eta = torch.cat([hill(half), -hill(side - half)], 1)
    unit: Tensor = eta / torch.linalg.vector_norm(eta)
    return unit


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Where the squares of one proposal lie: flat pixel numbers (N, side^2)."""

    pixels: Tensor
    side: int

    @staticmethod
    def at(top: Tensor, left: Tensor, side: int, width: int) -> "_Window":
        step = torch.arange(side, device=top.device)
        rows, columns = top[:, None, None] + step[:, None], left[:, None, None] + step[None, :]
        return _Window(pixels=(rows * width + columns).flatten(1), side=side)

    def read(self, images: Tensor) -> Tensor:
        """Return (N, C, side^2)."""
        return images.flatten(2).gather(2, self.pixels[:, None].expand(-1, images.shape[1], -1))

    def write(self, images: Tensor, values: Tensor) -> Tensor:
        places = self.pixels[:, None].expand(-1, images.shape[1], -1)
        return images.flatten(2).scatter(2, places, values).view_as(images)


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers)


def _place(numbers: Tensor, side: int, extent: int) -> Tensor:
    return (numbers * (extent - side + 1)).long()


@register("attack", "square")
@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search with squares of one colour, kept where the score falls: no gradient, one forward pass a query.

    delta ~ P(eps, h, x', x); x_new = clip(Proj_eps(x' + delta)); x' <- x_new where L(f(x_new), y) < L(f(x'), y),
    L = z_y - max_{k != y} z_k, with a target t: L = H(t, f(x')). The side h is the root of p H W, rounded; p starts
    at p_init and is halved along the schedule. linf: x' starts in vertical stripes x +- eps, and delta sets a square
    of each channel to x + eps or x - eps. l2: x' starts in tiles of hills and valleys (`hills`), and delta moves
    the length that a second square held to the first, in the direction of what is there plus a signed hill and valley.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in the ball of radius eps (norm linf or
    l2 per image, in units of [0, 1]). `queries` counts every forward pass of an image: the first is of x itself, the
    second of the start. An image that is fooled has reached the aim, and leaves, whatever stop_when_fooled says
    (algorithm 1 ends there); the others end with the point of the lowest L since the start. `maximise` makes all
    queries and returns the best point, which is x where nothing was better. Only forward passes: networks with no,
    a false or a NaN gradient are attacked alike.
    schedule="authors" is that of the authors' code as AutoAttack runs it: halved once more, at 500, and
    not rescaled to the number of queries. Raises InputError for images outside [0, 1] and labels out of range.
    Source: Andriushchenko et al. 2020, algorithms 1-3, equation 2; p_init 0.8 and 5,000 queries: Croce & Hein 2020.
    Deviations: images that are not square take p H W for p w^2, and tiles of the shorter side over 5. The
    authors' code also rounds an even side up (l2), scales each of hill and valley to unit length, takes the length
    that the squares held over all channels together and scales every proposal to length eps (l2), and draws one place
    for all images of a batch; here every image has its own, so that its result does not depend on the batch.
    """

    norm: Norm = "linf"
    eps: Size
    queries: Count = 5000
    p_init: Share = 0.8
    schedule: Schedule = "paper"
    target: TargetRule | None = None

    black_box = True  # needs scores only: runs where no gradient can be had

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the adversarial images."""
        with attacking(model, x, y, target, self.target, rng) as setup:
            loss = label_objective(model, setup, "margin" if setup.target is None else "cross_entropy")
            return self._search(loss, setup.x, setup.rng)[0]

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x' in the ball around x that maximises any per-example objective, by its values alone."""
        x = check_images(x.detach())
        found, better = self._search(plain(objective), x, rng or Stream())
        return torch.where(better.view(-1, 1, 1, 1), found, x)

    @torch.no_grad()
    def _search(self, evaluate: Evaluate, x: Tensor, rng: Stream) -> tuple[Tensor, Tensor]:
        """Return the points found and, as bool (N,), whether they are better than x."""
        out, rows, origin, point = x.clone(), torch.arange(len(x), device=x.device), x, x
        improved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        start = self.start(x, rng)
        searching, block = rng.child("squares"), x.new_empty(0)
        clean = best = x.new_empty(0)
        for query in range(self.queries):
            if not len(rows):
                break
            if query < 2:
                new = (x, start[rows])[query]
            else:
                number = query - 2
                if number % _BLOCK == 0:
                    block = self._numbers(searching.take(rows), origin, number // _BLOCK)
                share = share_of_pixels(self.schedule, self.p_init, number + 1, self.queries)
                new = self.propose(origin, point, share, block[:, number % _BLOCK])
            value, finished = evaluate(new, rows)
            if query < 2:  # the start is where the search sets out, better than the image or not
                clean, best, point = (value if query == 0 else clean), value, new
            else:
                better = value > best if finished is None else (value > best) | finished
                best = torch.where(better, value, best)
                point = torch.where(better.view(-1, 1, 1, 1), new, point)
            if finished is not None and bool(finished.any()):
                out[rows[finished]] = point[finished]
                left = ~finished
                rows, origin, point, clean, best = rows[left], origin[left], point[left], clean[left], best[left]
                block = block[left] if len(block) else block
        out[rows], improved[rows] = point, best > clean
        return out, improved

    def _numbers(self, stream: Stream, x: Tensor, step: int) -> Tensor:
        """Return the random numbers of a block of proposals, float64: float16 could not name every pixel."""
        wide = x.new_empty((len(x), 0), dtype=torch.float64)
        return stream.uniform(wide, (_BLOCK, x.shape[1] + (2 if self.norm == "linf" else 5)), step)

    def start(self, x: Tensor, rng: Stream) -> Tensor:
        """Return where the search sets out: vertical stripes (linf) or tiles of hills and valleys (l2)."""
        n, channels, height, width = x.shape
        rng = rng.child("start")
        if self.norm == "linf":
            return (x + self.eps * _signs(rng.uniform(x, (channels, 1, width)))).clamp(0, 1)
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        signs = _signs(rng.uniform(x, (channels, down, across)))[..., None, None]
        flips = rng.child("flip").uniform(x, (1, down, across))[..., None, None] < 0.5
        hill = hills(side, x)
        tiles = (
            (signs * torch.where(flips, hill.T, hill)).transpose(3, 4).reshape(n, channels, down * side, across * side)
        )
        above, before = (height - down * side) // 2, (width - across * side) // 2
        margins = (before, width - across * side - before, above, height - down * side - above)
        grid = functional.pad(tiles, margins)
        scale = self.eps / math.sqrt(channels * down * across)  # every tile of every channel has length 1
        return (x + grid * scale).clamp(0, 1)

    def propose(self, x: Tensor, point: Tensor, share: float, numbers: Tensor) -> Tensor:
        """Return what the search tries next: x (N, C, H, W), the points x', p, and random numbers in [0, 1).

        numbers (N, 2 + C) for linf: row and column of the square, the sign of each channel; (N, 5 + C) for l2:
        of the square that gains, of the one that loses, then whether the hills lie on their side.
        """
        _, _, height, width = x.shape
        side = side_of_square(self.norm, share, height, width)
        first = _Window.at(_place(numbers[:, 0], side, height), _place(numbers[:, 1], side, width), side, width)
        if self.norm == "linf":
            colour = x + self.eps * _signs(numbers[:, 2:]).to(x)[:, :, None, None]
            return first.write(point, first.read(colour)).clamp(0, 1)
        second = _Window.at(_place(numbers[:, 2], side, height), _place(numbers[:, 3], side, width), side, width)
        return self._shift_length(x, point - x, first, second, numbers[:, 4:])

    def _shift_length(self, x: Tensor, change: Tensor, first: _Window, second: _Window, numbers: Tensor) -> Tensor:
        unused = (self.eps**2 - change.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)[..., 0]
        hill = hills(first.side, x)
        flip = (numbers[:, 0] < 0.5)[:, None, None]
        eta = torch.where(flip, hill.T, hill).flatten(1)[:, None] * _signs(numbers[:, 1:]).to(x)[..., None]
        here = first.read(change)
        rest = first.write(change, torch.zeros_like(here))
        there = second.read(rest)  # without what both squares share
        held = here.square().sum(2, keepdim=True) + there.square().sum(2, keepdim=True)
        direction = _unit(eta + _unit(here))
        length = (held + unused / x.shape[1]).sqrt()
        rest = second.write(rest, torch.zeros_like(there))
        moved: Tensor = (x + project("l2", first.write(rest, direction * length), self.eps)).clamp(0, 1)
        return moved


def _unit(v: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(v, dim=2, keepdim=True)
    unit: Tensor = v / torch.where(length > 0, length, torch.ones_like(length))
    return unit
