"""Counting what a method costs, in images passed forward and backward through a network."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Passes:
    """Images passed through a network: forward, and backward to its input or weights."""

    forward: int = 0
    backward: int = 0


_open: ContextVar[tuple[Passes, ...]] = ContextVar("passes", default=())


@contextlib.contextmanager
def counted() -> Iterator[Passes]:
    """Count the passes made inside the block; blocks may be nested."""
    passes = Passes()
    token = _open.set((*_open.get(), passes))
    try:
        yield passes
    finally:
        _open.reset(token)


def note_forward(images: int) -> None:
    """Count one forward pass of this many images (called by every Classifier)."""
    for passes in _open.get():
        passes.forward += images


def note_backward(images: int) -> None:
    """Count one backward pass of this many images."""
    for passes in _open.get():
        passes.backward += images


def gradient(values: Tensor, x: Tensor, create_graph: bool = False, retain_graph: bool | None = None) -> Tensor:
    """Return d(sum of values)/dx: one gradient per example where each value depends on its own example only.

    values (N,) or (N, ...), x (N, ...) -> (N, ...), zeros where the values do not depend on x. Counted.
    """
    note_backward(len(x))
    if not values.requires_grad:
        return torch.zeros_like(x)
    keep = create_graph if retain_graph is None else retain_graph
    (grad,) = torch.autograd.grad(
        values, x, torch.ones_like(values), create_graph=create_graph, retain_graph=keep, allow_unused=True
    )
    return torch.zeros_like(x) if grad is None else grad
