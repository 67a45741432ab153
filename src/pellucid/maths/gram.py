"""Gram matrices: which features of an image occur together, wherever they are."""

from torch import Tensor

from pellucid.errors import InputError


def gram(maps: Tensor) -> Tensor:
    """Return the Gram matrices (N, D, D) of feature maps (N, D, h, w): mean over positions of f_i f_j.

    Raises InputError for other shapes. Source: Gatys et al. 2016, equation 3. Deviations: divided by the number of
    positions, so that images of two sizes can be compared.
    """
    if maps.ndim != 4:
        raise InputError(f"feature maps (N, D, h, w) are needed; got {tuple(maps.shape)}")
    flat = maps.flatten(2)
    return flat @ flat.mT / flat.shape[2]
