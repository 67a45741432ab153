import math

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.attacks import Elastic
from pellucid.attacks.elastic import gaussian_kernel, smooth
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted, cross_entropy
from pellucid.maths.flow import resample
from pellucid.rng import Stream


class Ramps(nn.Module):
    """Three classes: the products of the image with fixed, smooth patterns."""

    def forward(self, x):
        down = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None]
        across = torch.arange(x.shape[3], dtype=x.dtype, device=x.device)
        patterns = torch.stack([torch.sin(0.4 * down + 0.2 * k + 0.7 * across) for k in range(3)])
        return (x[:, :1] * patterns).flatten(2).sum(2)


LABELS = torch.tensor([0, 2, 1])


@pytest.fixture
def images(generator):
    return torch.rand(3, 1, 8, 6, generator=generator, dtype=torch.float64)


def blurred_slowly(field, kernel):
    """Blur (2, H, W) with the product of the kernel with itself, mirrored without repeating the border."""
    reach = len(kernel) // 2
    wide = np.pad(field, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    out = np.zeros_like(field)
    for r in range(field.shape[1]):
        for c in range(field.shape[2]):
            out[:, r, c] = (wide[:, r : r + 2 * reach + 1, c : c + 2 * reach + 1] * np.outer(kernel, kernel)).sum(
                (1, 2)
            )
    return out


def moved_slowly(image, flow):
    height, width = image.shape[1:]
    out = np.zeros_like(image)
    for r in range(height):
        for c in range(width):
            across, down = c + flow[0, r, c], r + flow[1, r, c]
            for rr in (math.floor(down), math.floor(down) + 1):
                for cc in (math.floor(across), math.floor(across) + 1):
                    if 0 <= rr < height and 0 <= cc < width:
                        out[:, r, c] += (1 - abs(down - rr)) * (1 - abs(across - cc)) * image[:, rr, cc]
    return out


@pytest.mark.parametrize(("size", "std"), [(5, 0.9), (1, 2.0)])
def test_one_step_as_pixel_by_pixel(images, size, std):
    attack = Elastic(eps=1.5, steps=1, step_size=0.4, kernel_size=size, kernel_std=std)
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-(offsets**2) / (2 * std**2))
    kernel /= kernel.sum()
    stream = Stream(4)
    start = 1.5 * (2 * stream.uniform(images, (2, 8, 6)) - 1)

    def loss(i, flow):  # of one image, in NumPy but for the network
        moved = moved_slowly(images[i].numpy(), blurred_slowly(flow, kernel))
        return float(cross_entropy(Ramps()(torch.as_tensor(moved)[None]), LABELS[i : i + 1]))

    out = attack(Ramps(), images, LABELS, rng=stream)
    for i in range(3):
        flow, slope = start[i].numpy(), np.zeros((2, 8, 6))
        for place in np.ndindex(2, 8, 6):
            shift = np.zeros_like(slope)
            shift[place] = 1e-6
            slope[place] = loss(i, flow + shift) - loss(i, flow - shift)
        flow = np.clip(flow + 0.4 * np.sign(slope), -1.5, 1.5)
        expected = moved_slowly(images[i].numpy(), blurred_slowly(flow, kernel))
        torch.testing.assert_close(out[i], torch.as_tensor(expected), rtol=0, atol=1e-10)


def test_the_kernel_is_the_authors_at_their_sizes():
    for side, size, std in ((224, 25, 3.0), (32, 5, 3 * 32 / 224)):
        like = torch.zeros(1, 2, side, side + 5, dtype=torch.float64)
        torch.testing.assert_close(Elastic().kernel(like), gaussian_kernel(size, std, like))
    assert len(Elastic().kernel(torch.zeros(1, 2, 8, 6))) == 3
    assert len(Elastic().kernel(torch.zeros(1, 2, 1, 1))) == 1
    assert float(gaussian_kernel(7, 1.0, torch.zeros(1)).sum()) == pytest.approx(1)


def test_blurring_keeps_an_even_field_and_its_bound(generator):
    field = torch.randn(2, 2, 9, 7, generator=generator, dtype=torch.float64)
    kernel = gaussian_kernel(5, 1.0, field)
    torch.testing.assert_close(smooth(torch.ones_like(field), kernel), torch.ones_like(field))
    assert float(smooth(field, kernel).abs().max()) <= float(field.abs().max())
    with pytest.raises(InputError, match="too wide"):
        smooth(field, gaussian_kernel(15, 1.0, field))


def test_no_flow_at_eps_zero_and_one_pixel_at_most_at_eps_one(images):
    assert torch.equal(Elastic(eps=0, steps=3)(Ramps(), images, LABELS), images)
    brightness = Elastic(eps=1, steps=30, kernel_size=1).maximise(lambda x, rows: x.flatten(1).sum(1), images)
    near = torch.nn.functional.max_pool2d(images, 3, stride=1, padding=1)
    assert bool((brightness <= near + 1e-12).all())
    assert float((brightness - images).mean()) > 0.5 * float((near - images).mean())


def test_steps_default_to_eps_over_the_root_of_their_number(images):
    seen = []

    def bright(x, rows):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    attack = Elastic(eps=0.8, steps=16, random_start=False, kernel_size=1)
    attack.maximise(bright, images)
    slope = (
        (images[:, :, 1:-1, 2:] - images[:, :, 1:-1, :-2]).sign()[:, 0],
        (images[:, :, 2:, 1:-1] - images[:, :, :-2, 1:-1]).sign()[:, 0],
    )
    flow = torch.zeros(3, 2, 8, 6, dtype=torch.float64)
    flow[:, 0, 1:-1, 1:-1], flow[:, 1, 1:-1, 1:-1] = 0.2 * slope[0], 0.2 * slope[1]
    torch.testing.assert_close(seen[1][:, :, 1:-1, 1:-1], resample(images, flow)[:, :, 1:-1, 1:-1])


def test_images_that_are_fooled_leave_at_once(images):
    wrong = (Ramps()(images).argmax(1) + 1) % 3
    with counted() as passes:
        Elastic(eps=1, steps=9, random_start=False)(Ramps(), images, wrong, stop_when_fooled=True)
    assert passes.backward == 3


def test_kernels_without_a_middle_are_refused():
    with pytest.raises(SpecError, match="odd"):
        Elastic(kernel_size=4)
