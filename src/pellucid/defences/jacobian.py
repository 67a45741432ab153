"""Regularisation of the network's Jacobian."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from pellucid.attacks import PGD
from pellucid.defences.gradient_penalty import chosen, forward, root, slopes
from pellucid.errors import InputError, SpecError
from pellucid.guard import frozen, recording
from pellucid.maths.jacobian import squared_frobenius
from pellucid.models.layers import layer_of, run_with_graph
from pellucid.protocols import AttackField, Context
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, Reals, Share, register

PositiveShare = Annotated[Share, Gt(0)]


@register("defence", "jacobian_regularization")
@dataclass(frozen=True, kw_only=True)
class JacobianRegularization:
    """Cross-entropy plus the Frobenius norm of the Jacobian of the logits with respect to the image.

    normalisation (H_i the cross-entropy, J_i = d z(x_i) / d x_i, B the batch size, lambda the field `weight`,
    J_rms = sqrt(1/B sum_i ||J_i||_F^2)):
    paper_sum: sum_i H_i + lambda sqrt(sum_i ||J_i||_F^2) = sum_i H_i + lambda sqrt(B) J_rms    (equation 4 to the letter)
    paper:     1/B sum_i H_i + lambda/B sqrt(sum_i ||J_i||_F^2) = ... + lambda J_rms / sqrt(B)  (the same divided by B)
    batch_sum: 1/B sum_i H_i + lambda sqrt(sum_i ||J_i||_F^2) = ... + lambda sqrt(B) J_rms
    mean:      1/B sum_i H_i + lambda J_rms
    code:      1/B sum_i H_i + lambda ||J_1||_F, the first image of the batch only (the released script)
    squared:   1/B sum_i H_i + lambda/2 J_rms^2                                                 (Hoffman et al. 2019)

    so that lambda_paper = lambda_paper_sum = sqrt(B) lambda_mean = B lambda_batch_sum have the same minimiser. The
    authors' 0.1 (MNIST) and 0.5 (CIFAR-10) were chosen with "code", batches of 500: "mean" has its scale and uses
    every image; "paper" is sqrt(500) = 22 times weaker. They train on from a finished network.

    projections=n estimates ||J_i||_F^2 from n random orthonormal directions, by n passes for K (`maths.jacobian`):
    without bias for the square, exact for n = K; the root of an estimate is a little low on average.
    layer: "logits", "probabilities", or a layer of the network by name, whose output is flattened; a wide one needs
    projections. row_weights (w_1, ..., w_K) make it sum_k w_k ||row_k||^2. norm="spectral" puts the largest singular
    value of J_i, from the K x K matrix J J^T, for the Frobenius norm in all of the above; the rows are weighted by
    sqrt(w_k). examples < 1 takes the Jacobian of a random share of the batch (one image at least), whose mean square
    stands for the batch's; these images, and the one of "code", have a small forward of their own (with batch
    statistics and a dropout mask of their own), so that they cost their share. at="perturbed" takes the Jacobian at
    attack(f, x, y), "largest" where the attack finds ||J|| largest in its ball, no gradient through x'; the logits of
    a ReLU network have the same Jacobian between two kinks, no slope leads there, and the attack stays at its start.
    With batch normalisation in train mode J_i contains terms of the other images.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "jacobian_penalty"}, the weighted terms; the slope of a norm
    is taken as 0 where it is 0. Raises InputError for images outside [0, 1], labels out of range, layers that are not
    there, and projections or row_weights that do not fit the outputs; SpecError for projections with the spectral
    norm and a share of the images with "code".
    Source: Jakubovitz & Giryes 2018, equations 3 and 4, and authors' code; Hoffman et al. 2019 (projections, squared).
    Deviations: the mean form above.
    """

    weight: NonNegative = 0.1
    normalisation: Literal["paper", "paper_sum", "batch_sum", "mean", "code", "squared"] = "paper"
    projections: Count | None = None
    layer: str = "logits"
    norm: Literal["frobenius", "spectral"] = "frobenius"
    row_weights: tuple[NonNegative, ...] = ()
    examples: PositiveShare = 1.0
    at: Literal["clean", "perturbed", "largest"] = "clean"
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.1, steps=10, step_size=0.025))

    moves: ClassVar[str] = "jacobian_norm"

    def check(self) -> None:
        """Refuse options that exclude each other."""
        if self.norm == "spectral" and self.projections is not None:
            raise SpecError("defence jacobian_regularization takes projections with norm frobenius only")
        if self.normalisation == "code" and self.examples < 1:
            raise SpecError("defence jacobian_regularization takes examples=1 with normalisation code: it uses one image")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx = ctx or Context()
        shared = self.at == "clean" and self.examples == 1 and self.normalisation != "code" and self.layer in _ENDS
        with torch.enable_grad():
            run = forward(model, x, y, differentiable=shared and self.weight > 0)
            loss = run.losses.sum() if self.normalisation == "paper_sum" else run.losses.mean()
            if self.weight == 0:
                return {"cross_entropy": loss, "jacobian_penalty": torch.zeros_like(loss)}
            if shared:
                squares = self._squares(_ENDS[self.layer](run.logits), run.x, ctx.stream)
            else:
                code = self.normalisation == "code"
                rows = torch.zeros(1, dtype=torch.int64, device=run.x.device) if code else chosen(run.x, self.examples, ctx)
                rng = ctx.stream.take(rows)
                point = self._point(model, run.x.detach()[rows], run.y[rows], rng).requires_grad_(True)
                squares = self._squares(self._outputs(model, point), point, rng)
        return {"cross_entropy": loss, "jacobian_penalty": self.weight * self._size(squares.mean(), len(run.x))}
