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
    """Return the images of a row with what the network said, and their difference where there are two."""
    pictures = []
    for state in states:
        confidence, guess = pairs[f"probabilities_{state}"][row].max(0)
        right = int(guess) == int(pairs["labels"][row])
        pixels = _last_axis(pairs[state][row])
        pictures.append(Picture(state, pixels, "image", classes[int(guess)], confidence=float(confidence), right=right))
    if len(states) == 1:
        return pictures
    change = pairs["adversarial"][row] - pairs["clean"][row]
    return [*pictures, Picture("difference", _last_axis(change), "difference")]


def map_pictures(
    pairs: dict[str, Tensor], row: int, titles: Sequence[str], states: Sequence[str] = STATES
) -> list[Picture]:
    """Return the maps of a row, one interpreter after the other, each on its own scale, with tau under attack."""
    size = (pairs["clean"].shape[2], pairs["clean"].shape[3])
    pictures = []
    for number, title in enumerate(titles):
        for state in states:
            raw = reduce_channels(pairs[f"maps_{number}_{state}"][row : row + 1])
            shown = resize(raw, size) if tuple(raw.shape[1:]) != size else raw
            tau = float(pairs[f"tau_{number}"][row]) if state == "adversarial" else None
            pictures.append(Picture(f"{title}, {state}", scale(shown).maps[0].numpy(), "signed", tau=tau))
    return pictures


def _last_axis(pixels: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)).numpy()
    return array
