"""What many tests use: a generator of their own, and a linear network, on which methods have closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pellucid.models import Classifier


class LinearNetwork(Classifier):
    """Logits W x + b of the flattened image."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def features(self, x: Tensor) -> Tensor:
        return x

    def classify(self, f: Tensor) -> Tensor:
        return f.flatten(1) @ self.weight.T + self.bias


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def linear() -> Callable[..., LinearNetwork]:
    def build(classes: int = 3, pixels: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64) -> LinearNetwork:
        own = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, pixels, generator=own, dtype=torch.float64)
        bias = 0.1 * torch.randn(classes, generator=own, dtype=torch.float64) - weight.sum(1) / 2  # grey: undecided
        return LinearNetwork(weight.to(dtype), bias.to(dtype))

    return build
