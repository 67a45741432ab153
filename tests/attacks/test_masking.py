"""The checks for masked gradients: each on a network that deserves it, none on one that does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks.masking import MASKING, are_probabilities, checks, differ
from pellucid.errors import InputError
from pellucid.maths.passes import counted
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, global_seed

CHECKED = set(MASKING) - {"black_box_beats_white_box"}
N = 6


class Pixels(nn.Module):
    """Four logits from 2 x 2 images: as plain as a network can be."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.flatten(1)


class Noisy(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1e-3 * torch.randn_like(x))


class Softmax(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Quantised(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 8).round() / 8 + 0 * x)


class Detached(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Saturated(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        return 1e5 * super().forward(x)


class Rooted(Pixels):
    """sqrt(0) has an infinite slope, which 0 times makes NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0 * x.flatten(1)).sum(1, keepdim=True).clamp(min=0).sqrt() * 0


class Purifies(Pixels):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(leaf.square().sum(), leaf)
        return super().forward(x - 0.1 * slope)


def images() -> tuple[Tensor, Tensor]:
    x = 0.1 + 0.8 * Stream(2).uniform(torch.empty(N, 0), (1, 2, 2))
    return x, x.flatten(1).argmax(1)


def raised(model: nn.Module) -> set[str]:
    with global_seed(1):
        found = checks(model, *images())
    assert set(found) == CHECKED
    assert all(flag.shape == (N,) and flag.dtype == torch.bool for flag in found.values())
    return {name for name, flag in found.items() if bool(flag.any())}


@pytest.mark.parametrize(
    ("network", "flags"),
    [
        (Pixels, set()),
        (Noisy, {"randomised"}),
        (Softmax, {"probabilities"}),
        (Quantised, {"zero_gradient"}),
        (Detached, {"zero_gradient"}),
        (Saturated, {"zero_gradient"}),
        (Rooted, {"non_finite_gradient"}),
        (Purifies, {"optimises_in_forward"}),
    ],
)
def test_every_flag_is_raised_where_it_is_deserved_and_nowhere_else(
    network: Callable[[], nn.Module], flags: set[str]
) -> None:
    assert raised(network()) == flags


def test_an_ordinary_network_raises_none() -> None:
    class Small(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 4)

        def features(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.norm(self.first(x)).relu(), 0.5, self.training)

    with global_seed(0):
        model = Small().train()
    with counted() as passes:
        assert raised(model) == set(), "dropout is off and batch norm uses its statistics in eval mode"
    assert (passes.forward, passes.backward) == (3 * N, N)
    assert model.training


def test_flags_are_of_single_images() -> None:
    x, y = images()

    class Half(Pixels):
        def forward(self, x: Tensor) -> Tensor:
            dark = x.mean((1, 2, 3)) < 0.5
            return torch.where(dark[:, None], 3 * x.detach().flatten(1), super().forward(x))

    assert torch.equal(checks(Half(), x, y)["zero_gradient"], x.mean((1, 2, 3)) < 0.5)


def test_no_images_and_wrong_ones() -> None:
    x, y = images()
    assert all(len(flag) == 0 for flag in checks(Pixels(), x[:0], y[:0]).values())
    with pytest.raises(InputError, match="labels"):
        checks(Pixels(), x, y + 4)
    with pytest.raises(InputError, match="logits"):
        checks(nn.Identity(), x, y)


def test_rounding_is_no_randomness_and_logits_no_probabilities() -> None:
    logits = torch.tensor([[100.0, -3.0], [0.0, 0.0], [1.0, 2.0]])
    assert differ(logits, logits + torch.tensor([[1e-5, 0], [0, 0], [0, 1e-3]])).tolist() == [False, False, True]
    assert differ(logits, logits * torch.nan).all()
    made = torch.tensor([[0.3, 0.7], [1.2, -0.2], [0.5, 0.6], [1.0, 0.0]])
    assert are_probabilities(made).tolist() == [True, False, False, True]
