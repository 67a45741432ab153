"""DeepFool against foolbox and ART (Adversarial Robustness Toolbox), iterate by iterate.

foolbox clips and overshoots at each step, as ours does by default. ART overshoots at the end only, adds nothing to the
distance, and takes its classes from the whole batch, so all classes are candidates here. It also goes on from where it
clipped, ours from the sum of the steps: the images lie away from 0 and 1, so that this plays no part.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import DeepFool
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive


class Curved(Classifier):
    def __init__(self) -> None:
        super().__init__(mean=0.4, std=0.2)
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Linear(6, 12)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(torch.empty(shape[0], 0), shape[1:])


@pytest.fixture(scope="module")
def model() -> Curved:
    network = Curved()
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(_numbers(*p.shape, seed=derive(1, name)))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return 0.5 + 0.15 * torch.tanh(_numbers(12, 2, 8, 6, seed=2)), torch.zeros(12, dtype=torch.int64)


def alike(x: Tensor, ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - x).abs().max()) > 0.005, "nothing moved, so nothing is compared"
    gap = float((ours - theirs).abs().max())
    assert gap <= 1e-5, f"the images differ by up to {gap}"


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_is_foolbox(model: Curved, batch: tuple[Tensor, Tensor], norm: Any, steps: int, edge: bool) -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = batch
    if edge:
        x = (6 * (x - 0.5) + 0.5).clamp(0, 1)
    kind = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    own = model(x).argmax(1)
    theirs, _, _ = kind(steps=steps, candidates=10)(wrapped, x, own, epsilons=None)
    alike(x, DeepFool(norm=norm, steps=steps)(model, x, y), theirs)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_is_art(model: Curved, batch: tuple[Tensor, Tensor], steps: int) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import DeepFool as ArtDeepFool
    from art.estimators.classification import PyTorchClassifier

    x, y = batch
    wrapped = PyTorchClassifier(
        model=model,
        loss=functional.cross_entropy,
        input_shape=(2, 8, 6),
        nb_classes=12,
        clip_values=(0, 1),
        device_type="cpu",
    )
    theirs = ArtDeepFool(wrapped, max_iter=steps, epsilon=0.02, nb_grads=12, batch_size=12, verbose=False)
    ours = DeepFool(steps=steps, overshoot_at="end", nudge=0.0, candidates=None)(model, x, y)
    alike(x, ours, torch.from_numpy(theirs.generate(x.numpy())))
