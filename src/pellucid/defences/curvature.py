"""Curvature regularisation (CURE)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.defences.gradient_norm import unit
from pellucid.defences.gradient_penalty import Forward, forward, slopes
from pellucid.defences.inner import RampField
from pellucid.guard import frozen
from pellucid.maths.losses import cross_entropy
from pellucid.protocols import Context
from pellucid.spec import Flag, NonNegative, Positive, register


@register("defence", "curvature_regularization")
@dataclass(frozen=True, kw_only=True)
class CurvatureRegularization:
    """Cross-entropy plus how much its gradient changes along the direction of the gradient's sign.

    L = 1/B sum_n l(x_n) + weight 1/B sum_n ||grad l(x_n + h z_n) - grad l(x_n)||_2^2, z_n = sign(g) / ||sign(g)||_2,
    g = grad l(x_n) held fixed: h^2 times ||Hessian z||^2 where the loss is quadratic (h is not divided out).

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "curvature_penalty"}, the weighted terms. h is an l2 length
    in units of [0, 1]. The authors' weight 4 and h = 1.5, the defaults, are of CIFAR-10 images divided by their
    standard deviation, about s = 0.2: on [0, 1], weight = 4 s^2 = 0.16 and h = 1.5 s = 0.3 are the same penalty of
    the same network, and the defaults a much stronger one. `ramp` moves h during training (their notebook has 0.1,
    0.4, 0.8, 1.8 and 3 in the first five epochs, 3 from then on); where h is 0 the penalty is 0. squared=False has
    the norm in place of its square: the paper prints the square, the released code takes the norm. mode="eval" takes
    the penalty with running batch statistics and without dropout, as the code does, by one forward more; "train" as
    the network is, both gradients with one dropout mask. x + h z may leave [0, 1]. The code differentiates the mean
    loss of the batch, so that its norms are 1/B of these and its weight is B times as large for the same penalty
    (squared=False).
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Moosavi-Dezfooli et al. 2019, Robustness via curvature regularization, and vice versa, section 4, and
    authors' code. Deviations: as said.
    """

    weight: NonNegative = 4.0
    h: Positive = 1.5
    ramp: RampField = None
    squared: Flag = True
    mode: Literal["train", "eval"] = "train"

    moves: ClassVar[str] = "curvature"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        h = self.h if self.ramp is None else self.ramp(ctx or Context())
        with torch.enable_grad():
            own = self.mode == "train"
            run = forward(model, x, y, differentiable=own)
            loss = run.losses.mean()
            if self.weight == 0 or h == 0:
                return {"cross_entropy": loss, "curvature_penalty": torch.zeros_like(loss)}
            if own:
                change = _change(model, run, h)
            else:
                with frozen(model, weights=True):
                    change = _change(model, forward(model, run.x, run.y), h)
            size = change.square().sum(1) if self.squared else torch.linalg.vector_norm(change, dim=1)
        return {"cross_entropy": loss, "curvature_penalty": self.weight * size.mean()}


def _change(model: nn.Module, run: Forward, h: float) -> Tensor:
    """Return grad l(x + h z) - grad l(x), (N, D), with its graph."""
    here = slopes(run.losses, run.x)
    ahead = (run.x + h * unit(here.sign()).view_as(run.x)).detach().requires_grad_(True)
    with run.again():
        logits = model(ahead)
    return slopes(cross_entropy(logits, run.y), ahead) - here
