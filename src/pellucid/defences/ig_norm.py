"""Robust attribution regularisation: the size of the loss's integrated gradients from an image to an attack on it."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pellucid.attacks import PGD
from pellucid.defences.inner import RampField, at_this_step, check_ramp, climbing, some
from pellucid.guard import check_images, check_labels, recording
from pellucid.maths.losses import cross_entropy
from pellucid.maths.passes import gradient
from pellucid.protocols import Attack, AttackField, Context
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, register

Normalisation = Literal["paper", "code"]


@register("defence", "ig_norm")
@dataclass(frozen=True, kw_only=True)
class IGNorm:
    """Cross-entropy, and the l1 norm of the loss's integrated gradients from x to x'.

    L = 1/N sum H(y, f(x)) + weight 1/N sum ||IG(x, x')||_1, x' the attack's maximiser of ||IG(x, x')||_1,
    IG(x, x')_i = (x'_i - x_i) 1/m sum_{k=1}^{m} d H(y, f(x + k/m (x' - x))) / dx_i, m = points.

    Completeness: sum_i IG_i -> H(y, f(x')) - H(y, f(x)) as m grows. The attack uses the coarser m = attack_points. The
    gradients along the path are differentiated through (in the weights in the update, in x' in the attack); all m
    points of all images are one batch of N m, so that batch normalisation in train mode would mix them.
    normalisation="paper" is Chen et al.'s; "code" divides the penalty by N once more, since Boopathy et al.'s code
    differentiates the mean loss of the batch: an effective weight of 1/50 (MNIST) or 1/128 (CIFAR-10). They take
    points=5 for both. `eps` moves the attack's eps during training; where it is 0 no attack is run, the penalty is 0.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "attribution_norm"}, the weighted terms.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Chen et al. 2019, Robust attribution regularization, IG-NORM (m = 50 and 10, weight 1, eps 0.3, 40 steps of
    0.01); Boopathy et al. 2020, section 5 (baseline). Deviations: means over the batch for their sums.
    """

    weight: NonNegative = 1.0
    points: Count = 50
    attack_points: Count = 10
    normalisation: Normalisation = "paper"
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.3, steps=40, step_size=0.01))
    eps: RampField = None

    moves: ClassVar[str] = "attribution_norm"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps."""
        check_ramp(self.attack, self.eps)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        return _terms(self, model, x, y, ctx or Context(), adversarial=False)


@register("defence", "ig_sum_norm")
@dataclass(frozen=True, kw_only=True)
class IGSumNorm:
    """Adversarial training plus the l1 norm of the loss's integrated gradients from x to x'.

    L = 1/N sum H(y, f(x')) + weight 1/N sum ||IG(x, x')||_1, x' the attack's maximiser of the same sum.

    Fields, path and normalisation as in IGNorm; Chen et al. weigh 0.1, Boopathy et al.'s code 1 (normalisation="code",
    points=5, attack_points=5).
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy" (0), "adversarial_cross_entropy", "attribution_norm"}.
    Raises InputError for images outside [0, 1] and labels out of range.
    Source: Chen et al. 2019, IG-SUM-NORM; Boopathy et al. 2020, section 5. Deviations: means over the batch.
    """

    weight: NonNegative = 0.1
    points: Count = 50
    attack_points: Count = 10
    normalisation: Normalisation = "paper"
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.3, steps=40, step_size=0.01))
    eps: RampField = None

    moves: ClassVar[str] = "attribution_norm"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps."""
        check_ramp(self.attack, self.eps)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        return _terms(self, model, x, y, ctx or Context(), adversarial=True)


def path_attribution(model: nn.Module, x: Tensor, moved: Tensor, y: Tensor, points: int) -> Tensor:
    """Return IG(x, x') of the cross-entropy, (N, C, H, W): right Riemann sum of `points`; differentiable.

    Its sum over pixels tends to H(y, f(x')) - H(y, f(x)). Raises InputError for labels out of range.
    """
    shares = torch.arange(1, points + 1, device=x.device, dtype=x.dtype) / points
    with recording():  # also where an attack only asks for the value
        step = moved - x
        path = (x + shares.view(-1, 1, 1, 1, 1) * step).flatten(0, 1)
        path = path if path.requires_grad else path.requires_grad_(True)
        logits = model(path)
        labels = check_labels(y.repeat(points), len(path), logits.shape[1], single=True)
        slopes = gradient(cross_entropy(logits, labels), path, create_graph=True)
        return step * slopes.view(points, *x.shape).mean(0)


def _terms(
    method: IGNorm | IGSumNorm, model: nn.Module, x: Tensor, y: Tensor, ctx: Context, adversarial: bool
) -> dict[str, Tensor]:
    x = check_images(x).detach()
    some(len(x), "training with the norm of attributions")
    y = check_labels(y, len(x), single=True)
    weight = method.weight / len(x) if method.normalisation == "code" else method.weight
    attack = at_this_step(method.attack, method.eps, ctx) if weight or adversarial else None
    moved = x
    if attack is not None:
        moved = _worst(attack, model, x, y, ctx.stream, method.attack_points, weight if adversarial else None)
    logits = model(moved if adversarial else x)
    loss = cross_entropy(logits, check_labels(y, len(x), logits.shape[1], single=True)).mean()
    zero = torch.zeros_like(loss)
    terms = {"cross_entropy": zero, "adversarial_cross_entropy": loss} if adversarial else {"cross_entropy": loss}
    if attack is None or not weight:
        return terms | {"attribution_norm": zero}
    return terms | {"attribution_norm": weight * _size(path_attribution(model, x, moved, y, method.points)).mean()}


def _worst(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: Stream, points: int, weight: float | None
) -> Tensor:
    """Return the x' of the largest attribution; with a weight, of the cross-entropy plus so much of it."""

    def objective(point: Tensor, rows: Tensor) -> Tensor:
        sizes = _size(path_attribution(model, x[rows], point, y[rows], points))
        return sizes if weight is None else cross_entropy(model(point), y[rows]) + weight * sizes

    with climbing(model, attack, rng):
        return attack.maximise(objective, x, rng=rng)


def _size(maps: Tensor) -> Tensor:
    return maps.abs().flatten(1).sum(1)
