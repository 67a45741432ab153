import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from pellucid.maths.flow import neighbour_loss, pixels, resample, total_variation


@pytest.fixture
def images(generator):
    return torch.rand(3, 2, 5, 7, generator=generator, dtype=torch.float64)


def moved_slowly(image, flow, border):
    """Resample one image pixel by pixel, from the four around each place."""
    height, width = image.shape[1:]
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            across, down = column + flow[0, row, column], row + flow[1, row, column]
            if border == "edge":
                across, down = min(max(across, 0), width - 1), min(max(down, 0), height - 1)
            for r in (math.floor(down), math.floor(down) + 1):
                for c in (math.floor(across), math.floor(across) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[:, row, column] += (1 - abs(down - r)) * (1 - abs(across - c)) * image[:, r, c]
    return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(8, 6), (1, 1), (28, 28), (224, 180)])
@pytest.mark.parametrize("border", ["edge", "zeros"])
def test_zero_flow_returns_the_image_and_whole_pixels_shift_it_exactly(dtype, size, border):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    flow = torch.zeros(2, 2, *size, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    assert torch.equal(resample(x, flow, border), x)  # not transposed either
    right = torch.zeros_like(flow)
    right[:, 0] = 1
    assert torch.equal(resample(x, right, border)[..., :-1], x[..., 1:])
    beyond = x[..., -1] if border == "edge" else torch.zeros_like(x[..., -1])
    assert torch.equal(resample(x, right, border)[..., -1], beyond)
    assert torch.equal(resample(x, right.flip(1), border)[..., :-1, :], x[..., 1:, :])


@pytest.mark.parametrize("border", ["edge", "zeros"])
def test_as_pixel_by_pixel(images, generator, border):
    flow = 3 * torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    slow = [moved_slowly(x.numpy(), f.numpy(), border) for x, f in zip(images, flow)]
    torch.testing.assert_close(resample(images, flow, border), torch.as_tensor(np.stack(slow)))


@pytest.mark.parametrize(("border", "padding"), [("edge", "border"), ("zeros", "zeros")])
def test_as_torch_with_corners_aligned_in_grid_units(images, generator, border, padding):
    flow = 0.3 * torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    whole = functional.affine_grid(torch.eye(2, 3, dtype=torch.float64).expand(3, 2, 3), (3, 2, 5, 7), True)
    theirs = functional.grid_sample(images, whole + flow.movedim(1, -1), padding_mode=padding, align_corners=True)
    torch.testing.assert_close(resample(images, pixels(flow), border), theirs)


@pytest.mark.parametrize("border", ["edge", "zeros"])
@pytest.mark.parametrize("whole", [False, True])
def test_derivatives_are_those_of_central_differences(images, generator, border, whole):
    flow = torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    flow = flow.round() if whole else flow  # at whole places: the mean of either side
    weights = torch.rand(images.shape, generator=generator, dtype=torch.float64)

    def value(f):
        return (weights * resample(images, f, border)).sum()

    leaf = flow.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    for _ in range(40):
        n, k, r, c = (int(torch.randint(side, (), generator=generator)) for side in flow.shape)
        shift = torch.zeros_like(flow)
        shift[n, k, r, c] = 1e-6
        difference = (value(flow + shift) - value(flow - shift)) / 2e-6
        assert float(slope[n, k, r, c]) == pytest.approx(float(difference), abs=1e-8)


def test_huge_flows_leave_the_image_and_do_not_overflow(images):
    flow = torch.full((3, 2, 5, 7), 1e30, dtype=torch.float64)
    assert torch.equal(resample(images, flow, "zeros"), torch.zeros_like(images))
    assert torch.equal(resample(images, flow), images[..., -1:, -1:].expand_as(images))
    assert resample(images[:0], flow[:0]).shape == (0, 2, 5, 7)


def test_losses_as_sums_over_pixels_and_neighbours(generator):
    flow = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64)
    for f, near, variation in zip(flow.numpy(), neighbour_loss(flow, 0), total_variation(flow)):
        pairs, smooth = 0.0, 0.0
        for r in range(4):
            for c in range(3):
                for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    if 0 <= r + down < 4 and 0 <= c + across < 3:
                        squared = float(((f[:, r, c] - f[:, r + down, c + across]) ** 2).sum())
                        pairs += squared**0.5
                        smooth += (squared + 1e-7) ** 0.5 if down + across > 0 else 0
        assert float(near) == pytest.approx(pairs)
        assert float(variation) == pytest.approx(smooth)


def test_an_even_flow_costs_nothing_and_has_a_gradient():
    flow = torch.ones(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(neighbour_loss(flow).sum(), flow)
    assert torch.equal(slope, torch.zeros_like(slope))
    assert float(neighbour_loss(flow.detach())) == pytest.approx(24 * 1e-4)
