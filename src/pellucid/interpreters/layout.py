"""How a layer's output lies over the image: channels first, channels last, or as tokens in a row."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pellucid.errors import InputError

Kind = Literal["channels_first", "channels_last", "tokens"]
PREFIXES = (0, 1, 2, 5, 6)  # none, a class token, one for distillation, four registers


@dataclass(frozen=True)
class Layout:
    """channels_first (N, D, h, w), channels_last (N, h, w, D), or tokens (N, prefix + h w, D), row by row."""

    kind: Kind
    height: int
    width: int
    prefix: int = 0

    def __str__(self) -> str:
        grid = f"a grid of {self.height}x{self.width}"
        if self.kind == "tokens":
            return f"tokens, {self.prefix} before {grid}"
        return f"{self.kind.replace('_', ' ')}, {grid}"

    def as_map(self, output: Tensor) -> Tensor:
        """Return a layer's output as (N, D, h, w)."""
        if self.kind == "channels_first":
            return output
        if self.kind == "channels_last":
            return output.permute(0, 3, 1, 2)
        grid = output[:, self.prefix :].transpose(1, 2)
        return grid.reshape(len(output), output.shape[2], self.height, self.width)


def find_layout(shape: tuple[int, ...], size: tuple[int, int], kind: Kind | None = None) -> Layout | None:
    """Return the layout of an output (N, ...) of images of `size`, None where none fits.

    A grid fits if its sides are to each other as those of the image, to one cell; of several numbers of tokens before
    a grid, the one whose grid fits best. Where channels could be first or last, they are first. kind, where given, is
    the only one tried, and a grid of channels need not fit the image.

    >>> str(find_layout((2, 197, 768), (224, 224)))
    'tokens, 1 before a grid of 14x14'
    >>> str(find_layout((2, 7, 14, 96), (224, 448)))
    'channels last, a grid of 7x14'
    """
    if len(shape) == 4 and kind != "tokens":
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        if kind == "channels_first" or (kind is None and _fits(first, size)):
            return Layout("channels_first", *first)
        if kind == "channels_last" or (kind is None and _fits(last, size)):
            return Layout("channels_last", *last)
    if len(shape) == 3 and shape[2] > 1 and kind in (None, "tokens"):
        grids = [(prefix, _grid(shape[1] - prefix, size)) for prefix in PREFIXES if prefix < shape[1]]
        fitting = [(_misfit(grid, size), prefix, grid) for prefix, grid in grids if _fits(grid, size)]
        if fitting:
            _, prefix, grid = min(fitting)
            return Layout("tokens", *grid, prefix)
    return None


def _misfit(grid: tuple[int, int], size: tuple[int, int]) -> int:
    """Return how far a grid is from the image's proportions: 0 where both sides divide by one patch size."""
    return abs(grid[0] * size[1] - grid[1] * size[0])


def _fits(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Say whether a grid has the image's proportions, to less than one cell, and no more cells than pixels."""
    small = 0 < grid[0] <= size[0] + 1 and 0 < grid[1] <= size[1] + 1
    return small and _misfit(grid, size) < max(size)


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the grid of so many tokens that has about the image's proportions, (0, 0) where rows would not be full."""
    h = max(1, round((tokens * size[0] / size[1]) ** 0.5))
    return (h, tokens // h) if tokens % h == 0 else (0, 0)


def unknown_layout(name: str, shape: tuple[int, ...], images: tuple[int, ...], others: list[str]) -> InputError:
    """Return the refusal of a layer (name "": the network's own map) whose layout cannot be told, with some that do."""
    what = f"layer {name!r} gives" if name else "the network's last feature map is"
    better = f"; layers that would do: {', '.join(others)}" if others else ""
    return InputError(
        f"{what} {shape} for {images[0]} images of {images[2]}x{images[3]}: that is no map over the image "
        f"(N, D, h, w), (N, h, w, D) or (N, tokens, D){better}; or name the layout"
    )
