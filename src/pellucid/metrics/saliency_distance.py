"""How far apart two saliency maps are, and how large one is, in norms."""

from typing import Literal, get_args

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.maps import compared

Scaling = Literal["none", "maximum", "mass"]


def saliency_distance(before: Tensor, after: Tensor, *, p: Literal[1, 2] = 1, scaling: Scaling = "maximum") -> Tensor:
    """Return the mean distance of two maps per position, per image; lower means more alike.

    p = 1: (1/D) sum_i |s I_i - s' I'_i|; p = 2: sqrt((1/D) sum_i (s I_i - s' I'_i)^2). Each map is first divided by
    its largest magnitude (maximum), by its mean magnitude (mass), or left as it is (none); maps of zeros stay zeros.

    before, after (N, D), or (N, ...) which is flattened -> float64 (N,) >= 0; in [0, 2] for maximum. NaN where a map
    contains NaN. Raises InputError where the shapes differ and for other p and scalings.
    Source: Zhang & Zhu 2019, section 5 ("average distance between the saliency maps"). Deviation: the paper gives
    no formula. Read here as the distance between the maps of an image and of its adversarial or transformed version,
    made comparable between networks by the scaling; the other reading, the mean size of maps that a helper of the
    authors' code prints, is `map_size`.

    >>> saliency_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0]]))
    tensor([1.], dtype=torch.float64)
    """
    if p not in (1, 2) or scaling not in get_args(Scaling):
        raise InputError(f"p must be 1 or 2, scaling one of {', '.join(get_args(Scaling))}; got {p} and {scaling!r}")
    a, b = (_scaled(maps.double(), scaling) for maps in compared(before, after))
    moved = (a - b).abs()
    return moved.mean(1) if p == 1 else moved.square().mean(1).sqrt()


def map_size(maps: Tensor) -> Tensor:
    """Return the mean magnitude of a map per position, per image; neither high nor low is good.

    (1/D) sum_i |I_i|. maps (N, D), or (N, ...) which is flattened -> float64 (N,) >= 0, in the unit of the map.
    Source: Zhang & Zhu 2019, authors' code (a helper that prints the mean l1 norm of SmoothGrad maps).

    >>> map_size(torch.tensor([[1.0, -3.0]]))
    tensor([2.], dtype=torch.float64)
    """
    return compared(maps, maps)[0].double().abs().mean(1)


def _scaled(maps: Tensor, scaling: Scaling) -> Tensor:
    if scaling == "none" or not maps.numel():
        return maps
    size = maps.abs().amax(1, keepdim=True) if scaling == "maximum" else maps.abs().mean(1, keepdim=True)
    return maps / torch.where(size == 0, torch.ones_like(size), size)  # NaN stays
