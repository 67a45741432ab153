"""Optimisers as descriptions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from annotated_types import Lt
from torch import nn

from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.schedule import Schedule, ScheduleField
from pellucid.spec import Flag, NonNegative, Positive, register

Decay = Annotated[NonNegative, Lt(1)]


@runtime_checkable
class Optimiser(Protocol):
    """A description of how weights are moved."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser for these weights."""
        ...

    def prepare(self, optimiser: torch.optim.Optimizer, ctx: Context) -> None:
        """Set what changes from step to step, a function of `ctx` alone, before the step is taken."""
        ...


def _set_rate(optimiser: torch.optim.Optimizer, lr: float, schedule: Schedule | None, ctx: Context) -> None:
    rate = lr if schedule is None else lr * schedule.factor(ctx)
    for group in optimiser.param_groups:
        group["lr"] = rate


@register("optimiser", "adam")
@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, with either reading of its epsilon.

    theta <- theta - lr m^ / (sqrt(v^) + eps), m^ and v^ the bias-corrected moments (PyTorch and the paper's
    algorithm); eps_hat=True adds eps to sqrt(v) before its bias correction (TensorFlow; "epsilon hat" in
    section 2 of the paper), which is the first form with eps / sqrt(1 - beta2^t) at step t.
    A `schedule` multiplies lr step by step.

    Source: Kingma & Ba 2015, algorithm 1. Ross & Doshi-Velez 2018 train with lr 2e-4 and eps 1e-4 in
    TensorFlow, so with eps_hat=True.
    Deviations: none; weight_decay adds to the gradient (L2), as in torch.optim.Adam.
    """

    lr: Positive = 2e-4
    eps: Positive = 1e-8
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    weight_decay: NonNegative = 0.0
    eps_hat: Flag = False
    schedule: ScheduleField | None = None

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's Adam for these weights."""
        return torch.optim.Adam(
            parameters, lr=self.lr, eps=self.eps, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay
        )

    def prepare(self, optimiser: torch.optim.Optimizer, ctx: Context) -> None:
        """Set this step's rate, and its eps where TensorFlow's form is asked for."""
        _set_rate(optimiser, self.lr, self.schedule, ctx)
        if self.eps_hat:
            for group in optimiser.param_groups:
                group["eps"] = self.eps / (1 - self.beta2 ** (ctx.step + 1)) ** 0.5


@register("optimiser", "rmsprop")
@dataclass(frozen=True, kw_only=True)
class RMSProp:
    """RMSProp, in PyTorch's form or in TensorFlow's.

    v <- decay v + (1 - decay) g^2, then
    PyTorch:                      b <- momentum b + g / (sqrt(v) + eps),     theta <- theta - lr b, from v = 0;
    TensorFlow (eps_inside=True): b <- momentum b + lr g / sqrt(v + eps),    theta <- theta - b,    from v = 1.

    A `schedule` multiplies lr step by step. TensorFlow's own defaults are decay 0.9 and eps 1e-10.

    Source: Tieleman & Hinton 2012, lecture 6.5; TensorFlow's form is that of tf.train.RMSPropOptimizer.
    Deviations: none; decay is 0.9 in both forms, as in the lecture (PyTorch's own default is 0.99).
    """

    lr: Positive = 1e-3
    decay: Decay = 0.9
    eps: Positive = 1e-8
    momentum: Decay = 0.0
    eps_inside: Flag = False
    schedule: ScheduleField | None = None

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser for these weights."""
        form = TensorFlowRMSProp if self.eps_inside else torch.optim.RMSprop
        return form(parameters, lr=self.lr, alpha=self.decay, eps=self.eps, momentum=self.momentum)

    def prepare(self, optimiser: torch.optim.Optimizer, ctx: Context) -> None:
        """Set this step's rate."""
        _set_rate(optimiser, self.lr, self.schedule, ctx)


class TensorFlowRMSProp(torch.optim.Optimizer):
    """RMSProp as TensorFlow has it: eps inside the root, the rate inside the momentum, the mean square begun at 1."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, alpha: float, eps: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the weights by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["square_avg"], state["momentum_buffer"] = torch.ones_like(p), torch.zeros_like(p)
                state["square_avg"].mul_(group["alpha"]).addcmul_(p.grad, p.grad, value=1 - group["alpha"])
                root = (state["square_avg"] + group["eps"]).sqrt_()
                p.sub_(state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(p.grad, root, value=group["lr"]))
        return loss


@register("optimiser", "sgd")
@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum.

    g <- g + weight_decay theta, b <- momentum b + g, theta <- theta - lr b, or lr (g + momentum b) with `nesterov`

    The first b is g. A `schedule` multiplies lr step by step. Raises SpecError for nesterov without momentum.

    Source: torch.optim.SGD; Zhang & Zhu 2019 train with lr 0.01, momentum 0.9 and weight decay 5e-4.
    Deviations: none.
    """

    lr: Positive = 0.01
    momentum: Decay = 0.9
    nesterov: Flag = False
    weight_decay: NonNegative = 5e-4
    schedule: ScheduleField | None = None

    def check(self) -> None:
        """Refuse Nesterov's momentum where there is none."""
        if self.nesterov and not self.momentum:
            raise SpecError("optimiser sgd with nesterov needs a momentum above 0, such as 0.9")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's SGD for these weights."""
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay
        )

    def prepare(self, optimiser: torch.optim.Optimizer, ctx: Context) -> None:
        """Set this step's rate."""
        _set_rate(optimiser, self.lr, self.schedule, ctx)
