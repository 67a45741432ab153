"""The small networks and pictures on which every registered method has to prove itself.

Weights and images come from Pellucid's own counter-based numbers, so that they are the same everywhere.
"""

import atexit
import contextlib
import functools
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, derive, global_seed
from pellucid.transforms.autoencoder import CompactStylizer, note

SIZE = (8, 6)  # not square, so that swapped axes show


def numbers(n: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return uniform numbers in [0, 1), shape (n, *shape)."""
    return Stream(seed).uniform(torch.empty(n, 0, dtype=torch.float64), shape).to(dtype)


def refill(model: nn.Module, seed: int, gain: float = 1.0) -> nn.Module:
    """Give every parameter normal numbers of scale gain / sqrt(fan-in); returns the model."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            fan_in = math.prod(p.shape[1:]) if p.ndim > 1 else 4
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(Stream(derive(seed, name)).normal(like, tuple(p.shape))[0] * gain * fan_in**-0.5)
    return model


class Smooth(Classifier):
    """Two convolutions with softplus, pooled, a linear head: smooth, so that derivatives can be checked."""

    def __init__(self, channels: int = 1, classes: int = 3, width: int = 4) -> None:
        super().__init__(mean=0.4, std=0.5)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1, stride=2)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        return functional.softplus(self.second(functional.softplus(self.first(x))))


class Kinked(Smooth):
    """Smooth but for one ReLU, for methods that need one; it is on for some units and off for others."""

    def features(self, x: Tensor) -> Tensor:
        return functional.softplus(self.second(functional.relu(functional.softplus(self.first(x)) - 0.7)))


class Rough(Classifier):
    """What a careless attack would disturb: batch norms, dropout, a shared in-place ReLU, a frozen weight."""

    def __init__(self, channels: int = 1, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.second, self.other_norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(0.3)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        return self.relu(self.other_norm(self.second(self.dropout(x))))


class Trained(Classifier):
    """A small ReLU network for real training: three convolutions, pooled, a linear head."""

    def __init__(self, classes: int, widths: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
        super().__init__()
        sizes = (1, *widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, padding=1, stride=strides[i]) for i in range(3)
        )
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        return x


class Breaks(nn.Module):
    """A network whose forward raises after a number of calls."""

    def __init__(self, inner: nn.Module, after: int) -> None:
        super().__init__()
        self.inner, self.left = inner, after

    def forward(self, x: Tensor) -> Tensor:
        if self.left == 0:
            raise RuntimeError("the forward pass broke")
        self.left -= 1
        return self.inner(x)


def smooth(classes: int = 3, dtype: torch.dtype = torch.float64, channels: int = 1) -> Smooth:
    """Return an untrained smooth network with lively gradients."""
    return refill(Smooth(channels, classes), seed=1, gain=2.0).to(dtype).eval()


def kinked(classes: int = 3, dtype: torch.dtype = torch.float64, channels: int = 1) -> Kinked:
    """Return an untrained network that is smooth but for one ReLU."""
    return refill(Kinked(channels, classes), seed=1, gain=2.0).to(dtype).eval()


def lively(method: Any, *given: Any, **more: Any) -> Smooth:
    """Return a network with lively gradients that an interpreter takes: smooth, or with one ReLU if it needs that."""
    needs_relu = getattr(getattr(method, "inner", method), "needs_relu", False)
    return (kinked if needs_relu else smooth)(*given, **more)


def rough(classes: int = 3) -> Rough:
    """Return a network in a mixed state: training, but one batch norm in eval mode and one weight frozen."""
    model = refill(Rough(classes=classes), seed=2, gain=1.5)
    model.train()
    model.other_norm.eval()
    model.first.weight.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.25)
    return model


def pictures(n: int, dtype: torch.dtype = torch.float64, channels: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Return images away from the ends of the range, so that clipping does not hide a mistake."""
    return (0.3 + 0.4 * numbers(n, channels, *size, seed=3)).to(dtype)


@functools.cache
def stylizer_file() -> str:
    """Return the path of a small stylizer's weights, which lie in a folder of this process."""
    folder = tempfile.mkdtemp(prefix="pellucid-contract-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    network = refill(CompactStylizer(width=4, levels=2), seed=23)
    save_file(network.state_dict(), f"{folder}/stylizer.safetensors", note({"width": 4, "levels": 2}))
    return f"{folder}/stylizer.safetensors"


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1)


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor, int], Tensor],
    steps: int,
    lr: float,
) -> None:
    """Train in place with Adam; batches of 64 in an order of their own."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(steps):
        rows = Stream(derive(7, step)).integers(torch.empty(64, 0), len(x)) if len(x) > 64 else torch.arange(len(x))
        optimiser.zero_grad()
        loss(x[rows], y[rows], step).backward()
        optimiser.step()


class World:
    """Everything that is made once per session."""

    @cached_property
    def digits(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Train and test images (N, 1, 8, 8) and labels of scikit-learn's digits."""
        data = load_digits()
        x = torch.as_tensor(data.images, dtype=torch.float32)[:, None] / 16
        y = torch.as_tensor(data.target, dtype=torch.int64)
        return x[:1400], y[:1400], x[1400:], y[1400:]

    @cached_property
    def classifier(self) -> Trained:
        """A network trained on digits and their FGSM examples, so that many steps beat one.

        Never change it, copy it.
        """
        x, y, _, _ = self.digits
        with global_seed(0):
            model = Trained(10, (16, 24, 32), (1, 2, 1))

            def loss(a: Tensor, b: Tensor, step: int) -> Tensor:
                leaf = a.clone().requires_grad_(True)
                clean = functional.cross_entropy(model(leaf), b)
                if step < 50:
                    return clean
                (slope,) = torch.autograd.grad(clean, leaf, retain_graph=True)
                near = (a + 0.2 * slope.sign()).clamp(0, 1)
                return 0.5 * clean + functional.cross_entropy(model(near), b)

            fit(model, x, y, loss, steps=400, lr=8e-3)
        return model.eval()

    @cached_property
    def beginner(self) -> Trained:
        """A network half-way through plain training on the digits; never change it, copy it."""
        x, y, _, _ = self.digits
        with global_seed(2):
            model = Trained(10, (12, 16, 32), (1, 2, 2))
            fit(model, x, y, lambda a, b, _: functional.cross_entropy(model(a), b), steps=200, lr=8e-3)
        return model

    @cached_property
    def known(self) -> tuple[Tensor, Tensor]:
        """64 test digits that the classifier knows."""
        _, _, x, y = self.digits
        right = predicted(self.classifier, x) == y
        return x[right][:64], y[right][:64]

    @cached_property
    def objects(self) -> "Objects":
        """A network trained to name the texture of an object in noise, and pictures of known place."""
        train, test = draw_objects(512, seed=11), draw_objects(64, seed=12)
        with global_seed(1):
            model = Trained(3, (12, 12, 16), (1, 2, 1))
            fit(
                model,
                train[0],
                train[1],
                lambda a, b, _: functional.cross_entropy(model(a), b),
                steps=250,
                lr=6e-3,
            )
        return Objects(model.eval(), *test)


@dataclass(frozen=True)
class Objects:
    """A trained network, images (N, 1, 16, 16), labels (N,) and where the object is (N, 16, 16)."""

    model: Trained
    x: Tensor
    y: Tensor
    mask: Tensor


def draw_objects(n: int, seed: int, side: int = 16, patch: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a bright square at a random place on noise; its class is its texture (stripes, checks)."""
    stream, like = Stream(seed), torch.empty(n, 0)
    y = stream.child("class").integers(like, 3)
    x = 0.5 * stream.uniform(like, (1, side, side))
    mask = torch.zeros(n, side, side, dtype=torch.bool)
    stripes = (torch.arange(patch) % 2).float().expand(patch, patch)
    textures = torch.stack([stripes, stripes.T, (stripes + stripes.T) % 2])
    rows = stream.child("row").integers(like, side - patch + 1).tolist()
    columns = stream.child("column").integers(like, side - patch + 1).tolist()
    for i in range(n):
        place = (slice(rows[i], rows[i] + patch), slice(columns[i], columns[i] + patch))
        x[(i, 0, *place)] = 0.3 * x[(i, 0, *place)] + 0.4 + 0.45 * textures[int(y[i])]
        mask[(i, *place)] = True
    return x, y, mask


@contextlib.contextmanager
def undisturbed(model: nn.Module, *tensors: Tensor, statistics: bool = True) -> Iterator[None]:
    """Assert that the block leaves modes, flags, gradients, weights, buffers and generators alone."""

    def state() -> dict[str, object]:
        return {
            "modes of the submodules": [m.training for m in model.modules()],
            "requires_grad flags": [p.requires_grad for p in model.parameters()],
            "the gradients (.grad) of the weights": [
                None if p.grad is None else p.grad.tolist() for p in model.parameters()
            ],
            "identity of the weights": [id(p) for p in model.parameters()],
            "weights": [p.tolist() for p in model.parameters()],
            "buffers (batch-norm statistics)": [b.tolist() for b in model.buffers()] if statistics else None,
            "hooks": [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
            "the tensors that were handed over": [t.tolist() for t in tensors],
            "requires_grad or .grad of the tensors handed over": [(t.requires_grad, t.grad is None) for t in tensors],
            "torch's global generator": torch.get_rng_state().tolist(),
            "numpy's global generator": str(np.random.get_state()),
            "Python's global generator": random.getstate(),
            "the default dtype": torch.get_default_dtype(),
            "grad mode": torch.is_grad_enabled(),
        }

    before = state()
    try:
        yield
    finally:
        after = state()
        changed = [name for name in before if before[name] != after[name]]
        assert not changed, f"a call must leave everything as it was; changed: {', '.join(changed)}"
