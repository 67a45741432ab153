"""Another rule for ReLU, inside a block only: how it is applied, or what it passes back.

The override is at the level of functions, so that modules, `F.relu`, methods, shared and in-place ReLUs all count,
and no module of the network is touched.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Rule = Callable[[int, Tensor], Tensor]
"""rule(number, x) -> what stands for the ReLU of x, the ReLUs of a block counted from 0"""

_RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_, Tensor.relu, Tensor.relu_)
_IN_PLACE = (torch.relu_, functional.relu_, Tensor.relu_)


@dataclass
class Replaced:
    """How many ReLUs the block has met so far."""

    count: int = 0


class _Override(TorchFunctionMode):
    def __init__(self, rule: Rule, met: Replaced) -> None:
        super().__init__()
        self.rule, self.met = rule, met

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _RELUS:
            return func(*args, **(kwargs or {}))
        given = dict(kwargs or {})
        x: Tensor = args[0] if args else given["input"]
        number, self.met.count = self.met.count, self.met.count + 1
        if func in _IN_PLACE or given.get("inplace", False):
            return x.copy_(self.rule(number, x.clone()))  # a copy, since the rule's derivative needs the old values
        return self.rule(number, x)


@contextlib.contextmanager
def relu_replaced(rule: Rule) -> Iterator[Replaced]:
    """Have rule(number, x) answer for every ReLU inside the block, counted from 0; yields how many there were.

    ReLUs inside compiled or scripted modules, and those written as ReLU6, clamp or maximum, are not seen.

    >>> with relu_replaced(lambda number, x: 2 * x) as met:
    ...     out = functional.relu(torch.tensor([-1.0, 1.0]))
    >>> out, met.count
    (tensor([-2.,  2.]), 1)
    """
    met = Replaced()
    with _Override(rule, met):
        yield met


@dataclass
class Guide:
    """Whether the guided rule holds: while a map is made, and no longer when that map is differentiated again."""

    active: bool = True


class _Guided(torch.autograd.Function):
    """relu forward; backward what is positive upstream, where the input was positive (Springenberg et al. 2014)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, guide: Guide) -> Tensor:
        out = x.clamp(min=0)
        ctx.save_for_backward(out)  # positive where x is, and kept by the next layer anyway
        ctx.guide = guide
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        passed = upstream.clamp(min=0) if ctx.guide.active else upstream
        return torch.ops.aten.threshold_backward(passed, out, 0), None


class _PassThrough(torch.autograd.Function):
    """relu forward; backward everything, also where the unit is off (Engstrom et al. 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream


def guided_relu(x: Tensor, guide: Guide) -> Tensor:
    """Return relu(x), whose backward pass is relu(upstream) where x > 0 and zero elsewhere, as long as guide is active.

    After that it is ReLU's own: a map made under the rule depends on the image through the plain forward pass, and
    its derivatives must not be guided.

    Source: Springenberg et al. 2014, section 3.4.

    >>> x = torch.tensor([-1.0, 1.0, 1.0], requires_grad=True)
    >>> torch.autograd.grad(guided_relu(x, Guide()), x, torch.tensor([1.0, 1.0, -1.0]))[0]
    tensor([0., 1., 0.])
    """
    out: Tensor = _Guided.apply(x, guide)  # type: ignore[no-untyped-call]
    return out


def pass_through_relu(x: Tensor) -> Tensor:
    """Return relu(x), whose backward pass lets every gradient through, also where the unit is off.

    Source: Engstrom et al. 2019, authors' code ("fake ReLU").

    >>> x = torch.tensor([-1.0, 1.0], requires_grad=True)
    >>> torch.autograd.grad(pass_through_relu(x), x, torch.tensor([1.0, -2.0]))[0]
    tensor([ 1., -2.])
    """
    out: Tensor = _PassThrough.apply(x)  # type: ignore[no-untyped-call]
    return out
