"""The l2 attack of Carlini & Wagner against foolbox.

foolbox measures its objective's distance from the image moved inside (0, 1), ours from the image itself: a difference
of half a millionth. Its early abort looks at the sum over the batch, so neither aborts here.
"""

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import CarliniWagner
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive


class Smooth(Classifier):
    def __init__(self) -> None:
        super().__init__(mean=0.4, std=0.2)
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(torch.empty(shape[0], 0), shape[1:])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("steps", "runs"), [(12, 1), (30, 3)])
def test_is_foolbox(steps: int, runs: int, targeted: bool) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = Smooth()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(_numbers(*p.shape, seed=derive(1, name)))
    model.eval().requires_grad_(False)
    x = 0.5 + 0.15 * torch.tanh(_numbers(8, 2, 8, 6, seed=2))
    own = model(x).argmax(1)
    aim = model(x).scatter(1, own[:, None], -torch.inf).argmax(1)
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=runs, steps=steps, stepsize=0.02, initial_const=0.5, abort_early=False
    )
    criterion = foolbox.criteria.TargetedMisclassification(aim) if targeted else foolbox.criteria.Misclassification(own)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    their_images, _, success = theirs(wrapped, x, criterion, epsilons=None)
    ours = CarliniWagner(search_steps=runs, adam_steps=steps, learning_rate=0.02, initial_c=0.5, abort_early=False)
    found = ours(model, x, own, target=aim if targeted else None)
    assert bool(success.any()), "nothing succeeded, so nothing is compared"
    assert torch.equal(found[~success], x[~success]), "ours returns the image where it fails, foolbox a black one"
    gap = float((found - their_images)[success].abs().max())
    assert gap <= 1e-5, f"the images differ by up to {gap}"
