"""Averages of a network's weights over the course of its training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pellucid.protocols import Context
from pellucid.spec import Count, Flag, Share, member, register


@runtime_checkable
class Average(Protocol):
    """A description of which networks on the way are averaged, and with what weights."""

    needs_statistics: ClassVar[bool]
    """Whether the statistics of batch normalisation are those of no network, so that `refresh_statistics` is due."""

    def build(self, network: nn.Module) -> AveragedModel:
        """Return a copy of the network, in eval mode as `.module`; all of its state is tensors in its state_dict."""
        ...

    def update(self, averaged: AveragedModel, network: nn.Module, ctx: Context) -> None:
        """Take the network into the average, after the optimiser step that `ctx` belongs to."""
        ...


AverageField = Annotated[Average, member("average")]


@register("average", "ema")
@dataclass(frozen=True, kw_only=True)
class EMA:
    """The exponential moving average of weights and of running statistics.

    a_1 = w_1, a_{t+1} = d_t a_t + (1 - d_t) w_{t+1}, d_t = min(decay, (1 + t) / (10 + t)), or decay without `warmup`

    w_t are the weights after t optimiser steps; those before the first step are not in it. Whole numbers among the
    buffers (counters) are the last network's.

    Source: Polyak & Juditsky 1992; the warm-up is that of tf.train.ExponentialMovingAverage.
    Deviations: none.
    """

    needs_statistics: ClassVar[bool] = False

    decay: Share = 0.999
    warmup: Flag = True

    def build(self, network: nn.Module) -> AveragedModel:
        """Return a copy of the network to average in."""
        return AveragedModel(network, multi_avg_fn=_blend(self.decay), use_buffers=True).eval()

    def update(self, averaged: AveragedModel, network: nn.Module, ctx: Context) -> None:
        """Take the network into the average."""
        t = int(averaged.n_averaged)
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        averaged.multi_avg_fn = _blend(decay)
        averaged.update_parameters(network)


def _blend(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Return what moves tensors of one dtype towards others; whole numbers become the others."""
    move: Callable[[Any, Any, Tensor | int], None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def blend(averaged: Any, current: Any, count: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            move(averaged, current, count)
        else:
            for mine, other in zip(averaged, current):
                mine.copy_(other)

    return blend


@register("average", "swa")
@dataclass(frozen=True, kw_only=True)
class SWA:
    """Stochastic weight averaging: the plain mean of networks from the last part of the run.

    The mean of the weights after every `every`-th step (counted from 1) among those taken at progress >= begin.
    Until the first of them, and where there is none, it is the network itself.

    Source: Izmailov et al. 2018, algorithm 1.
    Deviations: the learning rate is left to the optimiser's schedule. Averages are taken every so many steps, and
    the first at the first multiple of `every`, where the paper takes them at the ends of cycles or epochs.
    """

    needs_statistics: ClassVar[bool] = True

    begin: Share = 0.75
    every: Count = 100

    def build(self, network: nn.Module) -> AveragedModel:
        """Return a copy of the network to average in."""
        return AveragedModel(network).eval()

    def update(self, averaged: AveragedModel, network: nn.Module, ctx: Context) -> None:
        """Take the network into the average if it is its turn."""
        counts = ctx.progress >= self.begin and (ctx.step + 1) % self.every == 0
        if counts or not averaged.n_averaged:
            averaged.update_parameters(network)
            if not counts:
                averaged.n_averaged.zero_()


def refresh_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the statistics of batch normalisation anew, in one pass over images (N, C, H, W) in [0, 1].

    They become the means of the batches' statistics, each batch counting alike. The pass is in train mode, so that
    dropout drops; the network's mode is given back. A network without batch normalisation is left alone.

    Source: Izmailov et al. 2018, section 3.2.
    """
    update_bn(batches, network)
