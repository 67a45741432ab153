"""JPEG without rounding: an affine map between an image and the coefficients of its 8x8 blocks, in quantisation steps.

A coefficient vector holds the blocks of Y, then of Cb, then of Cr (both at half the resolution), 64 numbers per block,
the vertical frequency first: (N, H W + 2 H W / 4).
"""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# ITU-T T.81, tables K.1 and K.2: quantisation steps by vertical, then horizontal frequency, for 8-bit images.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF 1.02: rows Y, Cb, Cr from R, G, B, and back.
FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
LEVEL = 128.0  # taken off before the transform
_WHITE = 255.0


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """Return the orthonormal cosine transform of 8x8 blocks as a matrix (64 frequencies, 64 pixels).

    Row (u, v), column (i, j): a(u) a(v) / 4 cos((2 i + 1) u pi / 16) cos((2 j + 1) v pi / 16), a(0) = 1 / sqrt 2.
    """
    place, frequency = np.arange(8), np.arange(8)[:, None]
    one = np.asarray(0.5 * np.cos((2 * place + 1) * frequency * np.pi / 16), dtype=np.float64)
    one[0] /= np.sqrt(2)
    return np.asarray(np.kron(one, one), dtype=np.float64)


def _matrix(values: object, like: Tensor) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=like.dtype, device=like.device)


def _bases(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cosine matrix and, per table, the quantisation steps (64,)."""
    return (
        _matrix(_cosines(), like),
        _matrix(np.ravel(LUMINANCE), like),
        _matrix(np.ravel(CHROMINANCE), like),
    )


def _split(plane: Tensor) -> Tensor:
    """Cut planes (N, H, W) into blocks (N, H W / 64, 64)."""
    n, height, width = plane.shape
    return plane.reshape(n, height // 8, 8, width // 8, 8).transpose(2, 3).reshape(n, -1, 64)


def _join(blocks: Tensor, height: int, width: int) -> Tensor:
    shape = (len(blocks), height // 8, width // 8, 8, 8)
    return blocks.reshape(shape).transpose(2, 3).reshape(len(blocks), height, width)


def coefficients(height: int, width: int) -> int:
    """Return how many coefficients an image of this size has; both sides are multiples of 16."""
    return height * width * 3 // 2


def encode(x: Tensor) -> Tensor:
    """Return the coefficients of images (N, 1 or 3, H, W) in [0, 1], H and W multiples of 16.

    Y, Cb, Cr of 255 x; Cb and Cr averaged over 2x2 pixels; 128 taken off; 8x8 cosine transform; divided by the
    quantisation steps and not rounded. A grey image has Cb = Cr = 128.
    """
    x = x.expand(-1, 3, -1, -1)
    cosines, luminance, chrominance = _bases(x)
    luma, *chroma = torch.einsum("kc,nchw->knhw", _matrix(FROM_RGB, x), _WHITE * x).unbind(0)
    parts = [_split(luma - LEVEL) @ cosines.T / luminance]
    parts += [_split(functional.avg_pool2d(plane, 2)) @ cosines.T / chrominance for plane in chroma]
    return torch.cat([part.flatten(1) for part in parts], 1)


def decode(c: Tensor, height: int, width: int) -> Tensor:
    """Return the RGB images (N, 3, H, W) of coefficients, not clamped to [0, 1]: the inverse of `encode`, except that
    chroma stays constant on 2x2 pixels."""
    cosines, luminance, chrominance = _bases(c)
    area, small = height * width, (height // 2, width // 2)
    sizes = [area, area // 4, area // 4]
    planes = [
        _join((part.view(len(c), -1, 64) * steps) @ cosines, *size)
        for part, steps, size in zip(
            torch.split(c, sizes, 1), (luminance, chrominance, chrominance), ((height, width), small, small)
        )
    ]
    planes[1:] = [plane.repeat_interleave(2, 1).repeat_interleave(2, 2) for plane in planes[1:]]
    return (torch.einsum("ck,knhw->nchw", _matrix(TO_RGB, c), torch.stack(planes)) + LEVEL) / _WHITE
