"""Pictures of an image before and after an attack, and of its maps, from what `explain_pairs` returns."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from pellucid.interpreters.heatmap import reduce_channels, resize, scale
from pellucid.report.content import Picture

STATES = ("clean", "adversarial")


def image_pictures(
    pairs: dict[str, Tensor], row: int, classes: Sequence[str], states: Sequence[str] = STATES
) -> list[Picture]:
    """Return the images of a row with what the network said, and their difference where there are two.

    Whether that was right is left open where there are no labels.
    """
    pictures = []
    for state in states:
        confidence, guess = pairs[f"probabilities_{state}"][row].max(0)
        right = int(guess) == int(pairs["labels"][row]) if "labels" in pairs else None
        pixels = image_pixels(pairs[state][row])
        pictures.append(Picture(state, pixels, "image", classes[int(guess)], confidence=float(confidence), right=right))
    if len(states) == 1:
        return pictures
    change = pairs["adversarial"][row] - pairs["clean"][row]
    return [*pictures, Picture("difference", image_pixels(change), "difference")]


def map_pictures(
    pairs: dict[str, Tensor], row: int, titles: Sequence[str], states: Sequence[str] = STATES, which: int = 0
) -> list[Picture]:
    """Return the maps of a row, one interpreter after the other, each on its own scale, with tau under attack.

    `which` is the number of the class among those that were explained.
    """
    size = (pairs["clean"].shape[2], pairs["clean"].shape[3])
    pictures = []
    for number, title in enumerate(titles):
        for state in states:
            tau = float(pairs[f"tau_{number}"][row, which]) if state == "adversarial" else None
            pixels = map_pixels(pairs[f"maps_{number}_{state}"][row, which], size)
            pictures.append(Picture(f"{title}, {state}", pixels, "signed", tau=tau))
    return pictures


def map_pixels(raw: Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """Return one raw map (h, w) or (C, H, W) at the size of its image, its channels summed, scaled to [-1, 1]."""
    flat = reduce_channels(raw[None])
    shown = resize(flat, size) if tuple(flat.shape[1:]) != size else flat
    array: NDArray[Any] = scale(shown.float()).maps[0].cpu().numpy()
    return array


def image_pixels(pixels: Tensor) -> NDArray[Any]:
    """Return an image, or a difference of images, (C, H, W) as (H, W) or (H, W, C)."""
    array: NDArray[Any] = (pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)).float().cpu().numpy()
    return array
