"""Gradients along the straight path from a baseline to the image."""

import contextlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels, reading, recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.gradient import Gradient
from pellucid.interpreters.scores import Score, per_target, score_of
from pellucid.maths.blur import gaussian_blur
from pellucid.maths.relu import relu_replaced
from pellucid.maths.streaming import chunk_for, summed
from pellucid.rng import Stream
from pellucid.spec import NOT_HASHED, Count, Positive, register

Baseline = Literal["black", "white", "blurred", "expected"]
Rule = Literal["midpoint", "right"]

_BLUR = 0.1  # sigma of the blurred baseline, as a share of the shorter side


class Attribution(NamedTuple):
    """Maps, and how far their sums are from the difference of scores that they should add up to.

    completeness_error (N,) or (N, M): |sum_i I_i - (s(x) - s(a))|, in units of the score; gap: s(x) - s(a). Both are
    in single precision at least.
    """

    maps: Tensor
    completeness_error: Tensor
    gap: Tensor


@register("interpreter", "integrated_gradients")
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Doors):
    """The difference to a baseline image, weighted by the mean gradient on the straight path from there.

    I(x, c) = (x - a) (1/m) sum_{i=1}^{m} d s_c(a + t_i (x - a)) / dx, elementwise; t_i = (i - 1/2)/m (midpoint) or
    i/m (right, the Riemann sum that Boopathy et al. print). The maps sum to s_c(x) - s_c(a), as m grows
    (completeness); midpoints have a small fraction of the error of the right sum at equal m.

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, C, H, W), signed; target (N, M) -> (N, M, C, H, W) from m
    forwards and M m backwards an image. The baseline a is black (0), white (1), blurred (the image under a Gaussian
    of a tenth of its shorter side), or what `from_baseline` is given. expected draws another baseline for every
    step, from the images given, else images of uniform noise, and so averages over baselines. `attribution`
    also returns the completeness error.
    softplus_beta, where given, replaces every ReLU by softplus of this beta inside the call (Boopathy et al.: 1), so
    that second derivatives exist; the scores are then those of that other network. With create_graph it must not
    recompute activations in the backward pass (checkpointing), which would meet its own ReLU there.
    Path points are passed `chunk` at a time (None: by the size of the image), halved where memory runs out; the
    result depends on that by rounding only. With create_graph the graphs of all steps are held.
    Raises InputError for images outside [0, 1], labels out of range and baselines that do not fit.
    Source: Sundararajan et al. 2017, equations 1 and 3; Boopathy et al. 2020, equation 2 (right, black; 100 steps and
    softplus in their code); expected: Erion et al. 2021. Deviations: the midpoint rule by default; expected
    takes the t_i of the rule instead of random ones.
    """

    baseline: Baseline = "black"
    rule: Rule = "midpoint"
    steps: Count = 50
    score: Score = "logit"
    softplus_beta: Positive | None = None
    chunk: Count | None = field(default=None, metadata=dict(NOT_HASHED))

    def from_baseline(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        baseline: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of images against given baselines in [0, 1]: (C, H, W) for all, or (N, C, H, W).

        With baseline="expected" they are the (B, C, H, W) to draw from.
        """
        x, given = check_images(x), self._given(baseline, x)
        target = check_labels(target, len(x), what="targets")
        with reading(model, create_graph):
            return self._integrated(model, x, target, given, rng or Stream(), create_graph)

    def attribution(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        baseline: Tensor | None = None,
        rng: Stream | None = None,
    ) -> Attribution:
        """Return the maps with their completeness error, for two more forwards; baseline as in `from_baseline`.

        With baseline="expected" the baselines' score is the mean over the steps' draws.
        """
        x = check_images(x)
        target = check_labels(target, len(x), what="targets")
        given, rng = None if baseline is None else self._given(baseline, x), rng or Stream()
        with reading(model, False):
            maps = self._integrated(model, x, target, given, rng, False)
            draws, chunk = self.steps if self.baseline == "expected" else 1, chunk_for(x, self.chunk)

            def scores(rows: Tensor, steps: Tensor) -> Tensor:
                return self._scores(model, self._start(x, given, rng, rows, steps), target[rows])

            start = summed(scores, len(x), draws, chunk, x.device) / draws
            gap = summed(lambda rows, _: self._scores(model, x[rows], target[rows]), len(x), 1, chunk, x.device) - start
        total = maps.flatten(target.ndim).sum(target.ndim, dtype=gap.dtype)
        return Attribution(maps, (total - gap).abs(), gap)

    def maps(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of any points, such as noisy images; the caller froze the model."""
        return self._integrated(model, x, target, None, rng or Stream(), create_graph)

    def _integrated(
        self, model: nn.Module, x: Tensor, target: Tensor, given: Tensor | None, rng: Stream, create_graph: bool
    ) -> Tensor:
        slope, shift = Gradient(score=self.score), 0.5 if self.rule == "midpoint" else 1.0
        wide = torch.promote_types(x.dtype, torch.float32)  # integers divide into the default dtype, float32
        x = x if create_graph else x.detach()

        def evaluate(rows: Tensor, steps: Tensor) -> Tensor:
            start = self._start(x, given, rng, rows, steps)
            way = x[rows] - start
            share = ((steps.to(wide) + shift) / self.steps).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
            slopes = slope.maps(model, start + share * way, target[rows], create_graph=create_graph)
            return slopes * (way if target.ndim == 1 else way[:, None])

        with self._activations(), recording(create_graph):
            total = summed(evaluate, len(x), self.steps, chunk_for(x, self.chunk), x.device)
            return (total / self.steps).to(x.dtype)

    def _start(self, x: Tensor, given: Tensor | None, rng: Stream, rows: Tensor, steps: Tensor) -> Tensor:
        """Return the baselines of some images at some steps."""
        if self.baseline == "expected":
            stream, like = rng.pairs(rows, steps).child("baseline"), x[rows].detach()
            if given is None:
                return stream.uniform(like)
            return given[stream.integers(like, len(given))]
        if given is not None:
            return given[rows] if len(given) == len(x) else given.expand_as(x)[rows]
        if self.baseline == "blurred":
            return gaussian_blur(x[rows], _BLUR * min(x.shape[2:]))
        return torch.full_like(x[rows], float(self.baseline == "white"))

    def _scores(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        with self._activations(), torch.no_grad():
            logits = model(x)
        return per_target(logits, target, lambda column, _: score_of(self.score, logits, column))

    def _activations(self) -> contextlib.AbstractContextManager[object]:
        beta = self.softplus_beta
        if beta is None:
            return contextlib.nullcontext()
        return relu_replaced(lambda _, x: functional.softplus(x, beta=beta))

    def _given(self, baseline: Tensor, x: Tensor) -> Tensor:
        """Return baselines (1, C, H, W), (N, C, H, W), or (B, C, H, W) to draw from; raise InputError for others."""
        given = baseline[None] if isinstance(baseline, Tensor) and baseline.ndim == 3 else baseline
        given = check_images(given).to(x)
        fits = len(given) > 0 if self.baseline == "expected" else len(given) in (1, len(x))
        if given.shape[1:] != x.shape[1:] or not fits:
            if self.baseline == "expected" and not len(given):
                raise InputError("expected baselines are drawn from those given, and none was given")
            raise InputError(
                f"a baseline must be one image {tuple(x.shape[1:])}, or one for each of the {len(x)}; got "
                f"{tuple(baseline.shape)}"
            )
        return given
