import math

import numpy as np
import pytest
import torch

from pellucid.attacks import Gabor
from pellucid.attacks.gabor import Convolution, gabor_kernels, quick_length, random_kernels
from pellucid.rng import Stream

from .effects import check_one_step, check_sizes_and_seeds, check_slope, images, slope_at

X = images(2, 3, 9, 7)


def slow_kernel(sides, sigma, waves, angle):
    kernel = np.zeros((23, 23))
    for side in range(sides):
        theta = angle + math.pi * side / sides
        for i in range(23):
            for j in range(23):
                down, across = -0.5 + i / 22, -0.5 + j / 22
                along = across * math.cos(theta) + down * math.sin(theta)
                beside = -across * math.sin(theta) + down * math.cos(theta)
                bell = math.exp(-0.5 * (along**2 + beside**2) / (sigma + 1e-3) ** 2)
                kernel[i, j] += bell * math.cos(2 * math.pi * waves * along)
    return kernel


def slow_noise(spikes, kernel):
    """Correlation with zeros outside, point by point."""
    height, width = spikes.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for a in range(height):
                for b in range(width):
                    if abs(a - i) <= 11 and abs(b - j) <= 11:
                        out[i, j] += spikes[a, b] * kernel[a - i + 11, b - j + 11]
    return out


def constants(noise):
    """What the gradient holds constant: mean, gain, ends of the range."""
    mean = noise.mean()
    contrast = abs(noise - mean) / abs(noise - mean).max()
    gain = 1.001 / (0.001 + contrast)
    evened = (noise - mean) * gain
    return mean, gain, evened.min(), evened.max()


def reference(attack, x, rng, held=None):
    kernels = random_kernels(x, rng.child("kernel")).numpy()

    def noisy(spikes, i):
        noise = slow_noise(spikes[0], kernels[i])
        mean, gain, low, high = constants(noise if held is None else slow_noise(held[i, 0].numpy(), kernels[i]))
        return np.clip(x[i].numpy() + attack.eps / 255 * ((noise - mean) * gain - low) / (high - low), 0, 1)

    return noisy


def test_kernels_as_in_loops():
    sides, sigma = torch.tensor([1, 3, 10]), torch.tensor([0.1, 0.27, 0.4], dtype=torch.float64)
    waves, angle = torch.tensor([3, 4.4, 5.75]).double(), torch.tensor([0.3, 1.7, 3.0]).double()
    found = gabor_kernels(sides, sigma, waves, angle)
    for i in range(3):
        slow = slow_kernel(int(sides[i]), float(sigma[i]), float(waves[i]), float(angle[i]))
        np.testing.assert_allclose(found[i].numpy(), slow, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, found.flip(1, 2))  # its own mirror image: convolution is correlation


@pytest.mark.parametrize("size", [(9, 7), (40, 26), (1, 1)])
def test_convolution_by_transforms_is_convolution(size):
    kernels, spikes = random_kernels(X[:, :1], Stream(1)), torch.randn(2, 1, *size, dtype=torch.float64)
    plain = torch.nn.functional.conv2d(spikes.transpose(0, 1), kernels[:, None], padding=11, groups=2).transpose(0, 1)
    convolve = Convolution(kernels, size)
    torch.testing.assert_close(convolve(spikes, torch.arange(2)), plain, rtol=0, atol=1e-10)
    torch.testing.assert_close(convolve(spikes[1:], torch.tensor([1])), plain[1:], rtol=0, atol=1e-10)


def test_quick_lengths():
    assert [quick_length(n) for n in (1, 7, 23, 43, 128, 235)] == [1, 8, 24, 45, 128, 240]


@pytest.mark.parametrize("form", ["paper", "code"])
def test_one_step_as_in_loops(form):
    attack, rng = Gabor(eps=60, step_size=0.3, steps=1, form=form), Stream(5)
    effect = attack.effect(X, rng)
    start = effect.start
    slope = slope_at(effect, X, start)
    check_slope(slope, start, X, reference(attack, X, rng, held=start), samples=6)
    free = (start != 0) if form == "paper" else (start == 0)
    check_one_step(attack, X, rng, (start + 0.3 * slope.sign()).clamp(-1, 1) * free, reference(attack, X, rng))


def test_one_pixel_in_fourteen_has_a_spike():
    x = torch.zeros(50, 1, 28, 28)
    start = Gabor().effect(x, Stream(2)).start
    assert ((start != 0).flatten(1).sum(1) == 56).all()
    spikes = start[start != 0]
    assert abs(float(spikes.mean())) < 0.05
    assert float(spikes.abs().max()) <= 1
    assert float((spikes**2).mean()) == pytest.approx(1 / 3, abs=0.03)
    where = (start != 0).float().mean((0, 1))
    assert float(where.max()) < 0.3  # no place is preferred


def test_default_steps_send_the_free_variables_to_the_ends():
    attack = Gabor()
    assert (attack.eps, attack.steps) == (400, 200)
    effect = attack.effect(X, Stream())
    for form, values in (("paper", {-1.0, 0.0, 1.0}), ("code", {-1.0, 0.0, 1.0})):
        effect = Gabor(form=form).effect(X, Stream())
        moved = effect.move(effect.start, torch.randn_like(effect.start), torch.zeros(2), torch.arange(2))
        assert set(moved.unique().tolist()) == values
        assert torch.equal(moved != 0, (effect.start != 0) == (form == "paper"))


def test_at_eps_zero_the_image_is_itself():
    assert torch.equal(Gabor(eps=0, steps=2)(torch.nn.Flatten(), X, torch.tensor([0, 1])), X)


def test_the_noise_is_the_same_in_all_channels_and_reaches_eps():
    x = torch.zeros(3, 3, 16, 16)
    out = Gabor(eps=255 / 2, steps=2).maximise(lambda p, rows: p.flatten(1)[:, :9].sum(1), x)
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.flatten(1).amax(1).tolist() == [0.5] * 3
    assert out.flatten(1).amin(1).tolist() == [0] * 3


def test_every_size_and_seed():
    check_sizes_and_seeds(Gabor(eps=40, steps=2))
