"""Interpretability-aware training: networks whose maps stay where they are around every image."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks import PGD
from pellucid.attacks.sharing import sharing
from pellucid.defences.inner import RampField, at_this_step, check_ramp, climbing, some
from pellucid.errors import SpecError
from pellucid.guard import check_images, check_labels, recording
from pellucid.interpreters import CAM
from pellucid.maths.discrepancy import Form, Order, Positions, discrepancy, label_free_discrepancy
from pellucid.maths.losses import cross_entropy
from pellucid.protocols import Attack, AttackField, Context, InterpreterField
from pellucid.rng import Stream
from pellucid.spec import Flag, NonNegative, name_of, register


class Losses(NamedTuple):
    """What the method weighs, per image: the losses at x and at x', and how far the maps moved between them."""

    clean: Tensor
    attacked: Tensor
    moved: Tensor


@register("defence", "interpretability_aware")
@dataclass(frozen=True, kw_only=True)
class InterpretabilityAware:
    """Cross-entropy, and how far the maps of an image move under an attack nearby.

    L = 1/N sum H(y, f(x)) + weight 1/N sum D(x, x'), x' in the attack's ball around x.

    classes: "all" takes the discrepancy of equation 7, which needs no target label (the map of y, and those of the
    other classes weighted by f(x')); "one" only the map of y, ||I(x, y) - I(x', y)||_p (Int-one-class).
    inner: x' maximises the discrepancy (equation 9, "Int"), or the cross-entropy ("Int2", equation 10: the attack as
    it is). adversarial=True has H(y, f(x')) instead of H(y, f(x)), and x' maximises H + weight D where it maximised D
    alone. x' is held fixed in the update. By name: int_one_class, int, int_adv, int2, int2_adv.
    The interpreter is any that can be differentiated again; CAM costs no more than a forward pass. p, positions and
    form are those of `label_free_discrepancy`: the paper's equation 7 on raw maps, summed over positions;
    form="code" leaves out its factors 1/2, as the authors' code does, which doubles the weight. positions="mean"
    divides by the number of positions, so that CAM's discrepancy is in units of logits.
    `eps` moves the attack's eps during training; where it is 0, or the weight is 0 and the cross-entropy clean, no
    attack is run, x' = x and D = 0.
    x (N, C, H, W) in [0, 1], y (N,) -> {"cross_entropy", "adversarial_cross_entropy" where asked for (the other is 0
    then), "discrepancy"}, the weighted terms. Raises InputError for images outside [0, 1], labels out of range, and
    networks that the interpreter refuses; SpecError for an interpreter without derivatives.
    Source: Boopathy et al. 2020, equations 7 to 10 and section 5 (weight 0.01, eps 0.3 with 40 steps of 0.01 on MNIST).
    Deviations: none known. Their ramp of eps is `eps=Ramp(start=0, stop=0.3, begin=2000, until=10000, unit="steps")`.
    """

    weight: NonNegative = 0.01
    classes: Literal["all", "one"] = "all"
    inner: Literal["discrepancy", "cross_entropy"] = "discrepancy"
    adversarial: Flag = False
    interpreter: InterpreterField = field(default_factory=CAM)
    p: Order = 1
    positions: Positions = "sum"
    form: Form = "paper"
    attack: AttackField = field(default_factory=lambda: PGD(eps=0.3, steps=40, step_size=0.01))
    eps: RampField = None

    moves: ClassVar[str] = "map_discrepancy"

    def check(self) -> None:
        """Refuse a ramp for an attack that has no eps, and maps that cannot be trained with."""
        check_ramp(self.attack, self.eps)
        if not getattr(self.interpreter, "differentiable", True):
            raise SpecError(f"maps of {name_of(self.interpreter)} cannot be differentiated, so not trained with")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        losses = self.losses(model, x, y, ctx or Context())
        moved = {"discrepancy": self.weight * losses.moved.mean()}
        if self.adversarial:
            zero = torch.zeros_like(moved["discrepancy"])
            return {"cross_entropy": zero, "adversarial_cross_entropy": losses.attacked.mean()} | moved
        return {"cross_entropy": losses.clean.mean()} | moved

    def losses(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Losses:
        """Return the losses per image that the terms are means of."""
        x = check_images(x)
        some(len(x), "interpretability-aware training")
        rng = ctx.stream.child("maps")
        before, logits = self._look(model, x, y, rng)
        y = check_labels(y, len(x), logits.shape[1], single=True)
        clean = cross_entropy(logits, y)
        attack = at_this_step(self.attack, self.eps, ctx)
        if attack is None or not (self.weight or self.adversarial):
            return Losses(clean, clean, torch.zeros_like(clean))
        moved = self._examples(attack, model, x, y, ctx.stream)
        after, logits = self._look(model, moved, y, rng)
        return Losses(clean, cross_entropy(logits, y), self._discrepancy(before, after, y, logits))

    def _examples(self, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
        if self.inner == "cross_entropy":
            return attack(model, x, y, rng=rng)
        maps = rng.child("maps")
        with climbing(model, attack, rng):
            before = self._look(model, x, y, maps, graph=False)[0].detach()

            def objective(point: Tensor, rows: Tensor) -> Tensor:
                after, logits = self._look(model, point, y[rows], maps.take(rows), graph=point.requires_grad)
                values = self._discrepancy(before[rows], after, y[rows], logits)
                return cross_entropy(logits, y[rows]) + self.weight * values if self.adversarial else values

            return attack.maximise(objective, x, rng=rng)

    def _look(self, model: nn.Module, x: Tensor, y: Tensor, rng: Stream, graph: bool = True) -> tuple[Tensor, Tensor]:
        """Return the maps that are compared, (N, M, ...), and the logits, from one forward where that is possible."""
        shared = sharing(model)
        with recording(graph):
            logits = shared(x)
        y = check_labels(y, len(x), logits.shape[1], single=True)
        every = torch.arange(logits.shape[1], device=x.device).expand(len(x), -1)
        asked = every if self.classes == "all" else y[:, None]
        return self.interpreter.maps(shared, x, asked, rng=rng, create_graph=graph), logits

    def _discrepancy(self, before: Tensor, after: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        if self.classes == "one":
            return discrepancy(before, after, self.p, positions=self.positions)
        return label_free_discrepancy(before, after, y, logits, form=self.form, p=self.p, positions=self.positions)
