import math

import numpy as np
import pytest
import torch

from pellucid.attacks import Snow
from pellucid.attacks.snow import BUDGET, limit, on_grids, random_flakes, snowfall
from pellucid.errors import InputError
from pellucid.rng import Stream

from .effects import check_one_step, check_sizes_and_seeds, check_slope, images, linear, slope_at

X = images(2, 3, 9, 6)


def slow_flake(down, across, width, sigma, mirrored):
    """A line from the middle of 13x13 pixels to (down, across) and its reflection, blurred; pixel by pixel."""
    steep = down - 6 > across - 6
    long, short = max(down, across) - 6, min(down, across) - 6
    half = width * math.sqrt(1 + short / long) / 2 / 2
    picture = np.zeros((13, 13))
    for t in range(long + 1):  # along the flatter axis
        for s in range(7):
            covered = min(max(1 + half - abs(s - t * short / long), 0), 1)
            place = (t, s) if steep else (s, t)
            picture[6 + place[0], 6 + place[1]] = covered
            picture[6 - place[0], 6 - place[1]] = covered
    if mirrored:
        picture = picture[:, ::-1]
    bell = np.array([[math.exp(-(a * a + b * b) / (2 * sigma**2)) for a in (-1, 0, 1)] for b in (-1, 0, 1)])
    bell /= bell.sum()
    out = np.zeros((13, 13))
    for i in range(13):
        for j in range(13):
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    if 0 <= i + a < 13 and 0 <= j + b < 13:
                        out[i, j] += bell[a + 1, b + 1] * picture[i + a, j + b]
    return out


def drawn_flakes(x, rng):
    """The same random draws as the attack's, drawn one by one."""
    ends = [8, 9, 10, 11, 12]
    rows, columns = (rng.child(name).words(x, (7,)) % 5 for name in ("down", "across"))
    tenth, blur = rng.child("width").words(x, (7,)) % 10, rng.child("blur").uniform(x, (7,))
    mirror = rng.child("mirror").words(x, ()) % 2
    widths = [1] * 6 + [3] * 3 + [5]
    return [
        [
            slow_flake(
                ends[rows[i, k]], ends[columns[i, k]], widths[tenth[i, k]], 0.41 + 0.19 * float(blur[i, k]), mirror[i]
            )
            for k in range(7)
        ]
        for i in range(len(x))
    ]


def slow_snow(intensities, flakes, height, width):
    """Fill seven grids, correlate each with its flake, point by point."""
    sky = np.zeros((height, width))
    for k, flake in enumerate(flakes):
        row, column = (0, k) if k < 4 else (k - 3, 0)
        for a in range(intensities.shape[1]):
            for b in range(intensities.shape[2]):
                y, x = 4 * a + row, 4 * b + column
                for i in range(height):
                    for j in range(width):
                        if abs(i - y) <= 6 and abs(j - x) <= 6:
                            sky[i, j] += intensities[k, a, b] ** 4 * flake[y - i + 6, x - j + 6]
    return sky


def reference(attack, x, flakes):
    def snowy(intensities, i):
        image = x[i].numpy()
        shares = (0.2126, 0.7152, 0.0722) if len(image) == 3 else (1.0,)
        luminance = sum(share * channel for share, channel in zip(shares, image))
        out = 0.75 * image + 0.25 * np.maximum(image, 1.5 * luminance + 0.5)
        return np.clip(out + attack.eps * slow_snow(intensities, flakes[i], *image.shape[1:]), 0, 1)

    return snowy


def slow_limit(intensities):
    out = np.clip(intensities.numpy(), 1e-9, 1)
    for picture in out.reshape(-1, *out.shape[2:]):
        for a in range(0, picture.shape[0], 8):
            for b in range(0, picture.shape[1], 8):
                block = picture[a : a + 8, b : b + 8]
                block *= BUDGET / max(block.mean(), BUDGET)
    return torch.from_numpy(out)


def test_flakes_as_in_loops():
    x = torch.zeros(12, 0, dtype=torch.float64)
    found = random_flakes(x, Stream(3))
    np.testing.assert_allclose(found.numpy(), np.array(drawn_flakes(x, Stream(3))), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, found.flip(2, 3))  # its own reflection: convolution is correlation


@pytest.mark.parametrize("size", [(9, 6), (17, 20), (4, 4), (1, 3)])
def test_snowfall_as_in_loops(size):
    x = torch.zeros(2, 0, dtype=torch.float64)
    intensities = images(2, 7, math.ceil(size[0] / 4), math.ceil(size[1] / 4), seed=4)
    found = snowfall(intensities, on_grids(random_flakes(x, Stream(3))), size)
    flakes = drawn_flakes(x, Stream(3))
    slow = np.stack([slow_snow(intensities[i].numpy(), flakes[i], *size)[None] for i in range(2)])
    np.testing.assert_allclose(found.numpy(), slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (7, 7), (16, 24), (9, 17)])
def test_limit_as_in_loops(size):
    intensities = 1.4 * images(2, 7, *size, seed=2) - 0.3
    found = limit(intensities)
    torch.testing.assert_close(found, slow_limit(intensities.clone()), rtol=0, atol=1e-12)
    assert bool((found > 0).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_one_step_as_in_loops(channels):
    x, attack, rng = X[:, :channels], Snow(eps=0.7, step_size=0.14, steps=1), Stream(5)
    effect, look = attack.effect(x, rng), reference(attack, x, drawn_flakes(x, rng.child("flakes")))
    slope = slope_at(effect, x, effect.start)
    check_slope(slope, effect.start, x, look, samples=6)
    torch.testing.assert_close(effect.start, limit(effect.start))
    check_one_step(attack, x, rng, slow_limit(effect.start + 0.14 * slope.sign()), look)


def test_the_released_code_takes_gradients_before_the_limit():
    """The released loop, written out: forward, limit, backward at the limited intensities, step."""
    attack, rng, everyone = Snow(eps=0.7, step_size=0.2, steps=4, form="code"), Stream(5), torch.arange(2)
    effect = attack.effect(X, rng)
    shown = kept = effect.start
    assert not torch.equal(kept, limit(kept)), "the start is not limited"
    for number in range(4):
        if number:
            kept = limit(shown)
        fourth = shown.pow(4).requires_grad_(True)
        value = linear(X)(effect.render(fourth.pow(0.25), everyone), everyone)
        (of_fourth,) = torch.autograd.grad(value.sum(), fourth)
        shown = kept + 0.2 * (of_fourth * 4 * kept**3).sign()
    out = attack.maximise(linear(X), X, rng=rng)
    torch.testing.assert_close(out, effect.render(shown, everyone).detach(), rtol=0, atol=1e-12)
    assert not torch.allclose(out, effect.render(limit(shown), everyone)), "the last step is not limited"


def test_the_snow_starts_dim():
    attack = Snow()
    assert (attack.eps, attack.steps) == (2, 200)
    start = Snow(form="code").effect(torch.zeros(20, 1, 32, 32), Stream(1)).start
    assert start.shape == (20, 7, 8, 8)
    assert float(start.min()) >= math.exp(-5)
    assert float(start.max()) <= 1
    assert float(start.mean()) == pytest.approx(0.2 * (1 - math.exp(-5)), abs=0.01)


def test_at_eps_zero_the_image_is_brightened():
    x = X[:, :1]
    out = Snow(eps=0, steps=2)(torch.nn.Flatten(), x, torch.tensor([0, 1]))
    torch.testing.assert_close(out, (0.75 * x + 0.25 * (1.5 * x + 0.5)).clamp(0, 1))


def test_every_size_and_seed():
    check_sizes_and_seeds(Snow(steps=2))


def test_refuses_what_has_no_colours():
    with pytest.raises(InputError, match="1 or 3 channels, not 2"):
        Snow().maximise(lambda p, rows: p.sum((1, 2, 3)), images(1, 2, 8, 8))
