import math

import numpy as np
import pytest
import torch

from pellucid.maths.decolorize import decolorized, quantile
from pellucid.rng import Stream


def images(n: int, height: int = 9, width: int = 7, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, height, width, generator=generator, dtype=torch.float64)


def reflected(place: int, side: int) -> int:
    while not 0 <= place < side:
        place = -place if place < 0 else 2 * (side - 1) - place
    return place


def by_hand(image: np.ndarray, shifts: np.ndarray, effect: float, noise: float) -> np.ndarray:
    """The paper's steps for one image (3, H, W), pixel by pixel; shifts (2, H, W) in pixels."""
    _, height, width = image.shape
    to_ypq = np.array([[0.29893602, 0.58704307, 0.11402090], [0.5, 0.5, -1], [1, -1, 0]])
    axis = np.zeros(2)
    for i in range(height):
        for j in range(width):
            k = reflected(round(i + shifts[0, i, j]), height), reflected(round(j + shifts[1, i, j]), width)
            change = image[:, i, j] - image[:, k[0], k[1]]
            distance = np.linalg.norm(change)
            if distance > 1e-12:
                y, p, q = to_ypq @ change
                axis += (1 - abs(y) / (np.linalg.norm(to_ypq[0]) * distance)) * np.sign(y) * np.array([p, q])
    y, p, q = np.einsum("ab,bhw->ahw", to_ypq, image)
    colour = axis[0] * p + axis[1] * q
    mixed = y + effect * colour / np.quantile(abs(colour), 1 - noise, method="hazen")
    low, high = np.quantile(mixed, [noise, 1 - noise], method="hazen")
    goal = effect * np.array([0, 1]) + (1 - effect) * np.quantile(y, [noise, 1 - noise], method="hazen")
    mixed = goal[0] + (mixed - low) / (high - low) * (goal[1] - goal[0])
    reach = effect * np.sqrt(p**2 + q**2) / math.sqrt(1.25)
    return np.clip(np.clip(mixed, y - reach, y + reach), 0, 1)


@pytest.mark.parametrize(("effect", "noise"), [(0.5, 0.001), (0.3, 0.05), (1.0, 0.02)])
def test_it_is_the_papers_algorithm(effect, noise):
    x, rng = images(3), Stream(4)
    scale = math.sqrt(2 * 7) * math.sqrt(2 / math.pi)
    shifts = [scale * rng.child("pairs", name).normal(x, (9, 7)).numpy() for name in ("down", "across")]
    made = decolorized(x, rng=rng, effect=effect, noise=noise)
    for i in range(3):
        wanted = by_hand(x[i].numpy(), np.stack([shifts[0][i], shifts[1][i]]), effect, noise)
        assert np.abs(made[i, 0].numpy() - wanted).max() < 1e-6


def test_grey_stays_as_it_is_and_tones_stay_near_their_luminance():
    grey = images(4)[:, :1].expand(-1, 3, -1, -1)
    assert (decolorized(grey) - grey[:, :1]).abs().max() < 1e-12
    x = images(4)
    red, green, blue = x.unbind(1)
    y = 0.29893602 * red + 0.58704307 * green + 0.1140209 * blue
    reach = 0.5 * torch.hypot((red + green) / 2 - blue, red - green) / math.sqrt(1.25)
    assert bool(((decolorized(x)[:, 0] - y).abs() <= reach + 1e-6).all())


def test_colours_of_almost_one_luminance_are_told_apart():
    red, green = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.2, 0.5, 0.2])  # luminances .379 and .376
    x = torch.where(torch.arange(20)[None, None] < 10, red[:, None, None], green[:, None, None]).expand(3, 20, 20)[None]
    grey = decolorized(x)
    assert grey.dtype == torch.float32
    assert float(grey[..., :10].mean() - grey[..., 10:].mean()) > 0.3  # the lighter one is still the lighter


def test_an_image_does_not_depend_on_its_batch():
    x, places = images(5), torch.tensor([7, 3, 99, 0, 12])
    together = decolorized(x, rng=Stream(2, places))
    alone = torch.cat([decolorized(x[i : i + 1], rng=Stream(2, places[i : i + 1])) for i in range(5)])
    assert (together - alone).abs().max() < 1e-12
    assert (decolorized(x, rng=Stream(3, places)) - together).abs().max() > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_quantiles_are_hazens(share):
    x = images(4).flatten(1)
    wanted = np.quantile(x.numpy(), share, axis=1, method="hazen")
    assert np.allclose(quantile(x.view(4, 3, 9, 7), share).numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1)])
def test_narrow_and_flat_images_are_finite(size):
    x = images(2, *size)
    assert bool(torch.isfinite(decolorized(x)).all())
    assert bool(torch.isfinite(decolorized(torch.full_like(x, 0.5))).all())
