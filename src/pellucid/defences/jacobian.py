"""Regularisation of the network's Jacobian."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.defences.gradient_penalty import chosen, forward, inseparable, root, slopes
from pellucid.defences.inner import climbing
from pellucid.errors import InputError, SpecError
from pellucid.maths.jacobian import squared_frobenius
from pellucid.maths.losses import wide
from pellucid.models.layers import layer_of, run_with_graph
from pellucid.protocols import AttackField, Context
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, Share, read_sequence, register

PositiveShare = Annotated[Share, Gt(0)]
Weights = Annotated[tuple[NonNegative, ...], BeforeValidator(read_sequence)]

_ENDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "probabilities": lambda logits: functional.softmax(wide(logits), 1),
}


@register("defence", "jacobian_regularization")
@dataclass(frozen=True, kw_only=True)
class JacobianRegularization:
    """Cross-entropy plus the Frobenius norm of the Jacobian of the logits with respect to the image.

    normalisation (H_i the cross-entropy, J_i = d z(x_i) / d x_i, B the batch size, lambda the field `weight`,
    R = sqrt(1/B sum_i ||J_i||_F^2)):
    paper_sum: sum_i H_i + lambda sqrt(sum_i ||J_i||_F^2) = ... + lambda sqrt(B) R        (equation 4 to the letter)
    paper:     1/B sum_i H_i + lambda/B sqrt(sum_i ||J_i||_F^2) = ... + lambda R / sqrt(B)   (the same divided by B)
    batch_sum: 1/B sum_i H_i + lambda sqrt(sum_i ||J_i||_F^2) = ... + lambda sqrt(B) R
    mean:      1/B sum_i H_i + lambda R
    code:      1/B sum_i H_i + lambda ||J_1||_F, the first image of the batch only           (the released script)
    squared:   1/B sum_i H_i + lambda/2 R^2                                                  (Hoffman et al. 2019)

    so that lambda_paper = lambda_paper_sum = sqrt(B) lambda_mean = B lambda_batch_sum have the same minimiser. The
    authors' 0.1 (MNIST) and 0.5 (CIFAR-10) were chosen with "code" and batches of 500: "mean" has its scale and uses
    every image; "paper" with the same lambda is sqrt(500) = 22 times weaker. They train on from a finished network.
    Hoffman et al. take 0.01 for "squared".

    projections=n estimates ||J_i||_F^2 from n random orthonormal directions, by n backward passes instead of K
    (`maths.jacobian`): without bias for the square, and exact for n = K; the root of an estimate is low on average.
    layer: "logits", "probabilities", or a layer of the network by its name, whose output is flattened (a wide one needs
    projections). row_weights (w_1, ..., w_K) make it sum_k w_k ||row k||^2. norm="spectral" has the largest singular
    value of J_i (of its rows times sqrt(w_k)), from the K x K matrix J J^T, in place of the Frobenius norm.
    examples < 1 takes the Jacobian of a random share of the batch, one image at least, whose mean square stands for
    that of the batch; they have a forward of their own, as has the image of "code", so that they cost their share (not
    with batch normalisation in train mode, where the whole batch is passed, and J_i contains terms of the others).
    at="perturbed" has the Jacobian at attack(f, x, y), "largest" where the attack finds its norm largest, without a
    gradient through x'. The Jacobian of a ReLU network's logits is the same between two kinks: no slope leads to a
    larger one, and the attack stays at its start.

    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "jacobian_penalty"}, the weighted terms; where the norm is 0
    its slope is taken as 0. Raises InputError for images outside [0, 1], labels out of range, layers that the network
    lacks, projections and row_weights that do not fit the outputs; SpecError for projections with the spectral norm
    and for a share of the images with "code".
    Source: Jakubovitz & Giryes 2018, equations 3 and 4, and authors' code; Hoffman et al. 2019 (projections, squared).
    Deviations: the mean form above.
    """

    weight: NonNegative = 0.1
    normalisation: Literal["paper", "paper_sum", "batch_sum", "mean", "code", "squared"] = "paper"
    projections: Count | None = None
    layer: str = "logits"
    norm: Literal["frobenius", "spectral"] = "frobenius"
    row_weights: Weights = ()
    examples: PositiveShare = 1.0
    at: Literal["clean", "perturbed", "largest"] = "clean"
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.1, steps=10, step_size=0.025))

    moves: ClassVar[str] = "jacobian_norm"

    def check(self) -> None:
        """Refuse options that exclude each other."""
        if self.norm == "spectral" and self.projections is not None:
            raise SpecError("defence jacobian_regularization takes projections with norm frobenius only")
        if self.normalisation == "code" and self.examples < 1:
            raise SpecError("defence jacobian_regularization takes no share of the images with normalisation code")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx, code = ctx or Context(), self.normalisation == "code"
        entire = (self.examples == 1 and not code) or inseparable(model)
        shared = entire and self.at == "clean" and self.layer in _ENDS
        with torch.enable_grad():
            run = forward(model, x, y, differentiable=shared and self.weight > 0)
            loss = run.losses.sum() if self.normalisation == "paper_sum" else run.losses.mean()
            if self.weight == 0:
                return {"cross_entropy": loss, "jacobian_penalty": torch.zeros_like(loss)}
            every = torch.arange(len(run.x), device=run.x.device)
            picked = every[:1] if code else chosen(run.x, self.examples, ctx)
            rows = every if entire else picked
            stream = ctx.stream.take(rows)
            if shared:
                squares = self._squares(_ENDS[self.layer](run.logits), run.x, stream)
            else:
                point = self._point(model, run.x[rows], run.y[rows], stream)
                squares = self._squares(self._outputs(model, point), point, stream)
            size = self._size((squares[picked] if entire else squares).mean(), len(run.x))
        return {"cross_entropy": loss, "jacobian_penalty": self.weight * size}

    def _size(self, mean: Tensor, images: int) -> Tensor:
        if self.normalisation == "squared":
            return mean / 2
        power = {"paper": -0.5, "paper_sum": 0.5, "batch_sum": 0.5}.get(self.normalisation, 0.0)
        scale: float = images**power
        return scale * root(mean)

    def _point(self, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
        """Return where the Jacobian is taken, as a leaf."""
        if self.at == "perturbed":
            x = self.attack(model, x, y, rng=rng)
        elif self.at == "largest":
            with climbing(model, self.attack, rng):

                def objective(point: Tensor, rows: Tensor) -> Tensor:
                    with torch.enable_grad():
                        leaf = point if point.requires_grad else point.detach().requires_grad_(True)
                        squares = self._squares(self._outputs(model, leaf), leaf, rng.take(rows))
                        return squares + 0 * leaf.flatten(1).sum(1)  # a linear network has no slope: say so by zeros

                x = self.attack.maximise(objective, x, rng=rng)
        return x.detach().requires_grad_(True)

    def _outputs(self, model: nn.Module, x: Tensor) -> Tensor:
        if self.layer in _ENDS:
            return _ENDS[self.layer](model(x))
        caught, _ = run_with_graph(model, {self.layer: layer_of(model, self.layer)}, x)
        if self.layer not in caught or len(caught[self.layer]) != len(x):
            raise InputError(f"the layer {self.layer!r} gives no output per image that could be differentiated")
        return caught[self.layer].flatten(1)

    def _squares(self, outputs: Tensor, x: Tensor, rng: Stream) -> Tensor:
        """Return the squared norm of every image's Jacobian, its rows weighted: (N, K), (N, C, H, W) -> (N,)."""
        if self.row_weights:
            if len(self.row_weights) != outputs.shape[1]:
                raise InputError(f"{len(self.row_weights)} row_weights do not fit {outputs.shape[1]} outputs")
            outputs = outputs * outputs.new_tensor([math.sqrt(weight) for weight in self.row_weights])
        if self.norm == "frobenius":
            return squared_frobenius(
                outputs, x, projections=self.projections, rng=rng.child("jacobian"), create_graph=True
            )
        rows = torch.stack([slopes(column, x) for column in outputs.unbind(1)], 1)
        wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        with torch.autocast(wide.device.type, enabled=False):  # there are no eigenvalues in bfloat16
            gram = wide @ wide.mT
            if not bool(gram.isfinite().all()):  # whoever trains says so; the solver would only break
                return gram.diagonal(dim1=1, dim2=2).sum(1) * torch.nan
            largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
        return largest.clamp(min=0)
