"""JSMA against torchattacks, where the algorithms coincide.

torchattacks aims at (y + 1) mod 10, so the networks have ten classes; it may take one pair more (ceil for floor),
so gamma D is even; it skips pixels within 0.01 of the end of the range, so the images keep away from it; and where
no pair qualifies it changes the pixel with index 0, so every image must have reached its target, or have changed
two new pixels in every step. Its negative theta is left out: it maximises alpha |beta| with alpha < 0, which no pair
that qualifies can win.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import JSMA
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive

GAMMA, PAIRS = 0.25, 8  # of 64 values


class Bent(Classifier):
    def __init__(self, channels: int) -> None:
        super().__init__(mean=0.4, std=0.5)
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64 // channels, 10)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))

    def classify(self, f: Tensor) -> Tensor:
        logits: Tensor = self.head(f.flatten(1))
        return logits


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(torch.empty(shape[0], 0), shape[1:])


def network(channels: int, seed: int) -> Bent:
    made = Bent(channels)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.copy_(0.5 * _numbers(*p.shape, seed=derive(seed, name)))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def torchattacks() -> Any:
    return pytest.importorskip("torchattacks")


@pytest.mark.parametrize("theta", [1.0, 0.4])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 4)])
def test_the_images_are_those_of_torchattacks(torchattacks: Any, theta: float, shape: tuple[int, int, int]) -> None:
    model, x = network(shape[0], seed=1), 0.5 + 0.2 * torch.tanh(_numbers(24, *shape, seed=2))
    y = model(x).argmax(1)
    ours = JSMA(theta=theta, gamma=GAMMA, target="next")(model, x, y)
    theirs = torchattacks.JSMA(model.requires_grad_(True), theta=theta, gamma=GAMMA)(x, y)
    changed = (ours != x).flatten(1).sum(1)
    reached = model(ours).argmax(1) == (y + 1) % 10
    assert bool((reached | (changed == 2 * PAIRS)).all()), "an image was left with no pair to change"
    assert float(reached.float().mean()) > 0.3, "few images reached the target: little is compared"
    assert len(changed.unique()) >= 3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
