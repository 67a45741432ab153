"""Measures of interpretation against Quantus, which takes NumPy arrays and signed maps as they are.

Its "black" is the darkest value of the image; 0 has to be asked for.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.metrics import (
    deletion,
    evidence,
    mass_on_object,
    pointing_game,
    rank_accuracy,
    roc_auc,
    sparsity,
)

PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


@pytest.fixture
def quantus(import_peer):
    return import_peer("quantus")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 5, 4)).eval()


def judged(metric, network: nn.Module, x: Tensor, y: Tensor, maps: Tensor, mask: Tensor | None = None, **more):
    arrays = {"x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": maps.float().numpy()}
    if mask is not None:
        arrays["s_batch"] = mask[:, None].numpy()
    return torch.tensor(np.array(metric(model=network, device="cpu", channel_first=True, **arrays, **more))).double()


@pytest.mark.parametrize("sign", ["magnitude", "positive"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mass_on_object, "RelevanceMassAccuracy"),
        (rank_accuracy, "RelevanceRankAccuracy"),
        (pointing_game, "PointingGame"),
        (roc_auc, "AUC"),
    ],
)
def test_localisation(quantus, network, generator, ours: Callable[..., Tensor], theirs: str, sign: str):
    x, y = torch.rand(12, 2, 6, 7, generator=generator), torch.zeros(12, dtype=torch.int64)
    maps = torch.randn(12, 2, 6, 7, generator=generator)
    mask = torch.rand(12, 6, 7, generator=generator) > 0.6
    if ours is rank_accuracy:  # theirs breaks the ties of zeros by their place in its sort
        mask[:, 2:] = False
    shown = evidence(maps, (6, 7), sign)[:, None]
    found = ours(maps, mask, sign=sign).double()
    expected = judged(getattr(quantus, theirs)(**PLAIN), network, x, y, shown, mask)
    torch.testing.assert_close(found, expected.flatten(), rtol=0, atol=1e-6)
    assert 0 < float(found.mean()) < 1


@pytest.mark.parametrize("pixels", [1, 6, 21])
def test_deletion_is_pixel_flipping_of_one_channel(quantus, generator, pixels: int):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 5, 4)).eval()
    x, y = torch.rand(5, 1, 6, 7, generator=generator), torch.tensor([0, 1, 2, 3, 0])
    maps = torch.randn(5, 1, 6, 7, generator=generator)
    metric = quantus.PixelFlipping(features_in_step=pixels, perturb_baseline=0.0, **PLAIN)
    for score in ("probability", "logit"):
        found = deletion(network, x, y, maps, pixels_per_step=pixels, score=score)
        expected = judged(metric, network, x, y, maps, softmax=score == "probability")
        torch.testing.assert_close(found.curve[:, 1:], expected, rtol=0, atol=1e-5)
        assert float(found.curve.std(1).min()) > 1e-3


def test_deletion_by_value_is_pixel_flipping_of_several_channels(quantus, network, generator):
    x, y = torch.rand(5, 2, 6, 7, generator=generator), torch.tensor([0, 1, 2, 3, 0])
    maps = torch.randn(5, 2, 6, 7, generator=generator)
    metric = quantus.PixelFlipping(features_in_step=14, perturb_baseline=0.0, **PLAIN)
    found = deletion(network, x, y, maps, pixels_per_step=14, unit="value")
    expected = judged(metric, network, x, y, maps, softmax=True)
    torch.testing.assert_close(found.curve[:, 1:], expected, rtol=0, atol=1e-5)
    by_pixel = deletion(network, x, y, maps, pixels_per_step=7)
    assert float((by_pixel.curve[:, 1:] - expected).abs().max()) > 1e-2


def test_the_area_is_theirs_but_for_the_untouched_image_and_the_scale(quantus, generator, monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # theirs asks for the name that NumPy 2 dropped
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(42, 4)).eval()
    x, y = torch.rand(3, 1, 6, 7, generator=generator), torch.tensor([0, 1, 2])
    maps = torch.randn(3, 1, 6, 7, generator=generator)
    metric = quantus.PixelFlipping(features_in_step=6, perturb_baseline=0.0, return_auc_per_sample=True, **PLAIN)
    found = deletion(network, x, y, maps, pixels_per_step=6)
    first = found.curve[:, :2].mean(1) / 7  # their curve starts after the first step
    theirs = judged(metric, network, x, y, maps, softmax=True).flatten()
    torch.testing.assert_close(found.area, first + theirs / 7, rtol=0, atol=1e-5)


def test_sparsity(quantus, network, generator):
    x, y = torch.rand(5, 2, 6, 7, generator=generator), torch.zeros(5, dtype=torch.int64)
    maps = torch.randn(5, 1, 6, 7, generator=generator).abs()
    torch.testing.assert_close(
        sparsity(maps), judged(quantus.Sparseness(**PLAIN), network, x, y, maps), rtol=0, atol=1e-6
    )
