import math

import numpy as np
import pytest
import torch

from pellucid.maths.jpeg import CHROMINANCE, LUMINANCE, coefficients, decode, encode


def slow_transform(block):
    """The two-dimensional cosine transform of an 8x8 block (T.81, A.3.3), one coefficient at a time."""
    out = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            scale = (1 / math.sqrt(2) if u == 0 else 1) * (1 / math.sqrt(2) if v == 0 else 1) / 4
            for i in range(8):
                for j in range(8):
                    waves = math.cos((2 * i + 1) * u * math.pi / 16) * math.cos((2 * j + 1) * v * math.pi / 16)
                    out[u, v] += scale * block[i, j] * waves
    return out


def slow_inverse(block):
    out = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            for u in range(8):
                for v in range(8):
                    scale = (1 / math.sqrt(2) if u == 0 else 1) * (1 / math.sqrt(2) if v == 0 else 1) / 4
                    waves = math.cos((2 * i + 1) * u * math.pi / 16) * math.cos((2 * j + 1) * v * math.pi / 16)
                    out[i, j] += scale * block[u, v] * waves
    return out


def blocks(plane):
    return [
        (slice(i, i + 8), slice(j, j + 8)) for i in range(0, plane.shape[0], 8) for j in range(0, plane.shape[1], 8)
    ]


def slow_encode(image):
    """Coefficients of one RGB image (3, H, W) in [0, 255]."""
    r, g, b = image
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    chroma = [-0.168736 * r - 0.331264 * g + 0.5 * b + 128, 0.5 * r - 0.418688 * g - 0.081312 * b + 128]
    halves = [(c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) / 4 for c in chroma]
    found = []
    for plane, table in ((luma, LUMINANCE), (halves[0], CHROMINANCE), (halves[1], CHROMINANCE)):
        found += [slow_transform(plane[place] - 128) / np.array(table) for place in blocks(plane)]
    return np.concatenate([block.ravel() for block in found])


def slow_decode(numbers, height, width):
    planes, used = [], 0
    for (h, w), table in (
        ((height, width), LUMINANCE),
        ((height // 2, width // 2), CHROMINANCE),
        ((height // 2, width // 2), CHROMINANCE),
    ):
        plane = np.zeros((h, w))
        for place in blocks(plane):
            plane[place] = slow_inverse(numbers[used : used + 64].reshape(8, 8) * np.array(table)) + 128
            used += 64
        planes.append(plane)
    luma, blue, red = planes[0], *(np.kron(plane - 128, np.ones((2, 2))) for plane in planes[1:])
    return np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])


def test_as_block_by_block(generator):
    x = torch.rand(2, 3, 16, 32, generator=generator, dtype=torch.float64)
    c = encode(x)
    assert c.shape == (2, coefficients(16, 32))
    slow = np.stack([slow_encode(image) for image in (255 * x).numpy()])
    np.testing.assert_allclose(c.numpy(), slow, rtol=0, atol=1e-10)
    changed = c + torch.randn(c.shape, generator=generator, dtype=torch.float64)
    slow = np.stack([slow_decode(row, 16, 32) for row in changed.numpy()])
    np.testing.assert_allclose(255 * decode(changed, 16, 32).numpy(), slow, rtol=0, atol=1e-9)


def test_without_rounding_it_is_the_identity_but_for_the_chroma(generator):
    grey = torch.rand(2, 1, 32, 16, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(decode(encode(grey), 32, 16), grey.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)
    coarse = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    coarse = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)  # constant on 2x2 pixels
    torch.testing.assert_close(decode(encode(coarse), 16, 16), coarse, rtol=0, atol=1e-5)
    fine = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    back = decode(encode(fine), 16, 16)
    shares = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close((back * shares).sum(1), (fine * shares).sum(1), rtol=0, atol=1e-5)
    assert not torch.allclose(back, fine, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(generator, dtype):
    x = torch.rand(1, 3, 16, 16, generator=generator, dtype=dtype)
    assert encode(x).dtype == decode(encode(x), 16, 16).dtype == dtype
