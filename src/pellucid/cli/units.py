"""Numbers of a description in the units of data that have a range of their own."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from pellucid.data import Converted, converted_eps, converted_weight
from pellucid.spec import kind_of, name_of

OF_IMAGES = (0.0, 1.0)


def in_both_units(description: Any, value_range: tuple[float, float]) -> list[Converted]:
    """Return the eps of lp attacks and the weights of squared input gradients; none for data in [0, 1]."""
    return [] if value_range == OF_IMAGES else list(_converted(description, value_range))


def _converted(value: Any, value_range: tuple[float, float]) -> Iterator[Converted]:
    if isinstance(value, tuple):
        for part in value:
            yield from _converted(part, value_range)
    if kind_of(value) not in ("attack", "defence"):
        return
    width = value_range[1] - value_range[0]
    if kind_of(value) == "attack" and hasattr(value, "norm") and getattr(value, "eps", None) is not None:
        yield converted_eps(value.eps * width, value_range, f"eps of {name_of(value)}")
    if kind_of(value) == "defence" and _squared_gradient(value):
        yield converted_weight(value.weight * width**2, value_range, f"weight of {name_of(value)}")
    for field in dataclasses.fields(value):
        yield from _converted(getattr(value, field.name), value_range)


def _squared_gradient(defence: Any) -> bool:
    """Whether the defence is made by `defences.gradient_penalty`, which adds squared norms of input gradients."""
    return hasattr(defence, "normalisation") and str(defence.moves).endswith("gradient_norm")
