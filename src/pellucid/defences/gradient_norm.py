"""The norm of the loss gradient, exactly or by a finite difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pellucid.defences.gradient_penalty import Forward, forward, slopes
from pellucid.maths.losses import cross_entropy
from pellucid.maths.passes import gradient, note_backward
from pellucid.protocols import Context
from pellucid.spec import Flag, NonNegative, Positive, register


@register("defence", "gradient_norm")
@dataclass(frozen=True, kw_only=True)
class GradientNorm:
    """Cross-entropy plus the norm of its gradient with respect to the image, not squared unless asked for.

    L = 1/B sum_n l(x_n) + weight 1/B sum_n ||g_n||_p, g_n = grad_{x_n} sum_m l(x_m), l(x_n) = H(y_n, yhat_n); squared
    has ||g_n||_p^2. To first order l(x) + e ||g||_2 is the largest loss in the l2 ball of radius e, l(x) + e ||g||_1
    that of the linf ball: the weight is the radius of an attack in the dual norm.

    form="exact" differentiates ||g_n|| a second time; where g = 0 the slope of the norm is taken as 0.
    "finite_difference" does without a second derivative, by one forward more (D the numbers of an image):
    l2: ||g||_2 ~ (l(x + h d) - l(x)) / h,         d = g / ||g||_2
    l1: ||g||_1 ~ sqrt(D) (l(x + h d) - l(x)) / h, d = sign(g) / sqrt(D)
    d is held fixed and the forward of l(x) is that of the first term; the error is of order h. With weight = h (l2, not
    squared) L = 1/B sum l(x + h d): adversarial training by one l2 step. x + h d may leave [0, 1]; where g = 0 the
    estimate is 0. Finlay & Oberman have 1/B sum l + lambda/2 1/B sum ((l(x + h d) - l(x)) / h)^2 with h = 0.01 and
    lambda = 0.1 for images in [0, 1]: squared=True with weight = lambda / 2 for l2, and lambda / (2 D) for l1, where
    they leave sqrt(D) out. Both forwards have the same dropout mask. In half precision the difference of two losses is
    rounding at this h. With batch normalisation in train mode g_n contains terms of the other examples, and the images
    x + h d are a batch of their own. The norm costs two plain steps, the square by finite differences 7/3.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "gradient_norm"}, the weighted terms. Raises InputError for
    images outside [0, 1] and labels out of range.
    Source: Finlay & Oberman 2019, Scaleable input gradient regularization, and authors' code (forward differences).
    Deviations: the norm itself is the default, the square an option; their weight is halved; sqrt(D) as said.
    """

    weight: NonNegative = 0.3
    norm: Literal["l2", "l1"] = "l2"
    squared: Flag = False
    form: Literal["exact", "finite_difference"] = "exact"
    h: Positive = 0.01

    moves: ClassVar[str] = "input_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        with torch.enable_grad():
            run = forward(model, x, y, differentiable=self.weight > 0)
            loss = run.losses.mean()
            if self.weight == 0:
                return {"cross_entropy": loss, "gradient_norm": torch.zeros_like(loss)}
            if self.form == "exact":
                norms = torch.linalg.vector_norm(slopes(run.losses, run.x), 2 if self.norm == "l2" else 1, dim=1)
                size = (norms.square() if self.squared else norms).mean()
            elif self.squared:
                slope = gradient(run.losses, run.x, retain_graph=True)
                ahead, scale = self._ahead(model, run, slope)
                size = ((ahead - run.losses) * scale).square().mean()
            else:
                loss, slope = with_known_gradients(loss, run.x, [p for p in model.parameters() if p.requires_grad])
                ahead, scale = self._ahead(model, run, slope)
                size = (ahead.mean() - loss) * scale
        return {"cross_entropy": loss, "gradient_norm": self.weight * size}

    def _ahead(self, model: nn.Module, run: Forward, slope: Tensor) -> tuple[Tensor, float]:
        """Return l(x + h d), (N,), and the factor that makes its difference to l(x) the norm."""
        length = 1.0 if self.norm == "l2" else math.sqrt(slope[0].numel())
        direction = unit(slope) if self.norm == "l2" else slope.sign() / length
        with run.again():
            logits = model(run.x.detach() + self.h * direction)
        return cross_entropy(logits, run.y), length / self.h


def with_known_gradients(loss: Tensor, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss with its gradient in the weights already at hand, and its gradient in x, by one backward pass.

    Passing back the loss that is returned costs nothing: its graph is gone. It cannot be differentiated twice.
    """
    note_backward(len(x))
    slope, *slopes = torch.autograd.grad(loss, [x, *weights], allow_unused=True)
    known: Tensor = _Known.apply(loss.detach(), slopes, *weights)  # type: ignore[no-untyped-call]
    return known, torch.zeros_like(x) if slope is None else slope


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, slopes: Sequence[Tensor | None], *weights: Tensor) -> Tensor:
        ctx.slopes = slopes
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if slope is None else upstream * slope for slope in ctx.slopes)


def unit(direction: Tensor) -> Tensor:
    """Return each example's direction with l2 length 1, and 0 where it is 0: (N, ...) -> (N, ...).

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    flat = direction.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)  # squares could underflow
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / torch.where(length > 0, length, torch.ones_like(length))).view_as(direction)
