"""Filters that keep some Fourier modes of images and drop the others.

A mask (..., H, W) lies as `torch.fft.fft2` lays modes: entry (i, j) stands for the signed frequencies of rows i and
columns j in cycles per image, 0 first, negative ones last. Masks are made on the CPU.
"""

import torch
from torch import Tensor

_EDGE = 1 + 1e-9  # on the squared radius: rounding of a root must not take the edge away


def squared_frequencies(size: tuple[int, int]) -> Tensor:
    """Return fy^2 + fx^2 of every mode, (H, W) int64; fy and fx are whole cycles per image height and width.

    >>> squared_frequencies((4, 3))
    tensor([[0, 1, 1],
            [1, 2, 2],
            [4, 5, 5],
            [1, 2, 2]])
    """
    rows, columns = (torch.arange(n) for n in size)
    rows, columns = torch.minimum(rows, size[0] - rows), torch.minimum(columns, size[1] - columns)
    return rows.square()[:, None] + columns.square()


def disc(size: tuple[int, int], radius: float) -> Tensor:
    """Return the mask of the modes with |f| <= radius (cycles per image, the edge included), bool (H, W).

    >>> disc((5, 5), 1).long()
    tensor([[1, 1, 0, 0, 1],
            [1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0]])
    """
    return squared_frequencies(size) <= int(min(radius * radius * _EDGE, 2.0**62))


def disc_of_share(size: tuple[int, int], share: float) -> Tensor:
    """Return the disc whose share of all modes is nearest to `share`, of two equally near the smaller; bool (H, W).

    From no mode (share 0) to all of them (share 1).
    """
    squared = squared_frequencies(size)
    below = torch.cat([squared.new_zeros(1), squared.flatten().bincount().cumsum(0)])  # how many squares are < i
    return squared < (below - share * squared.numel()).abs().argmin()


def far_from_middle(size: tuple[int, int]) -> Tensor:
    """Return the distance of every entry of the unshifted spectrum from entry (H / 2 - 1, W / 2 - 1), float64 (H, W).

    Zhang & Zhu's masks are made of it (entry (111, 111) at 224 pixels). It is no function of the frequency: mode f
    and its conjugate -f lie at different distances, and all modes at one distance form no ring around 0.
    Sizes that are odd take the entry rounded down, which is 0 at least.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64) - max(n // 2 - 1, 0) for n in size)
    return torch.hypot(rows[:, None], columns)


def conjugate(mask: Tensor) -> Tensor:
    """Return a mask (..., H, W) read at -f instead of f."""
    return mask.flip(-2, -1).roll((1, 1), (-2, -1))


def filtered(images: Tensor, mask: Tensor) -> Tensor:
    """Return the real part of the inverse transform of mask times the transform of images (N, C, H, W).

    Re F^-1(M F(x)), each channel by itself; mask (H, W), or any that broadcasts to (N, C, H, W). Nothing is clipped:
    filters by a mask and by its complement add up to x, and where M(f) = M(-f) the energies do as well (Parseval).
    Of a mask without that symmetry the real part keeps (M(f) + M(-f)) / 2 of mode f. Half floats are filtered in
    float32.
    """
    if not len(images):
        return images.clone()
    size = images.shape[-2:]
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    weights = (mask.to(wide.dtype) + conjugate(mask).to(wide.dtype)) / 2
    spectrum = torch.fft.rfft2(wide) * weights[..., : size[1] // 2 + 1]
    found: Tensor = torch.fft.irfft2(spectrum, s=size)
    return found.to(images.dtype)
