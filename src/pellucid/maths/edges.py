"""Luma and edges of images."""

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


def luma(images: Tensor) -> Tensor:
    """Return how bright each pixel of images (N, C, H, W) is, (N, H, W).

    0.299 R + 0.587 G + 0.114 B of three channels; the mean of any other number of them.
    """
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = (weight * images[:, c] for c, weight in enumerate(LUMA))
    return red + green + blue


def sobel(images: Tensor) -> Tensor:
    """Return the size of the gradient of the luma of images (N, C, H, W), (N, H, W).

    sqrt(Gx^2 + Gy^2), Gx = [-1 0 1] across, smoothed by [1 2 1] down, Gy the same turned; the edge pixels are repeated
    outside. A step of height 1 along an axis gives 4, a constant image exactly 0. Any range, any size.

    Source: Sobel & Feldman 1968. Deviations: none.

    >>> sobel(torch.tensor([[[[0., 0., 1., 1.]]]]))
    tensor([[[0., 4., 4., 0.]]])
    """
    padded = functional.pad(luma(images)[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = padded[:, :, 2:] - padded[:, :, :-2], padded[:, 2:] - padded[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return torch.hypot(across, down)
