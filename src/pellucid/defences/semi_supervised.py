"""Interpretability-aware training that also learns from images without labels."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from pellucid.defences.inner import some
from pellucid.defences.interpretability import InterpretabilityAware
from pellucid.errors import SpecError
from pellucid.guard import check_images, check_labels, frozen
from pellucid.protocols import Context, DefenceField
from pellucid.rng import Stream
from pellucid.spec import Share, register

_APART = 1 << 38  # where the places of images without labels begin: their random numbers are no labelled image's


@register("defence", "semi_supervised")
@dataclass(frozen=True, kw_only=True)
class SemiSupervised:
    """Cross-entropy of images with labels; the discrepancy of maps also of images without.

    L = 1/|A| sum_{A} H(y, f(x)) + weight 1/|A u B| sum_{A u B} D(x, x'), A with labels, B without.

    D is that of `inner`, an InterpretabilityAware, with all its fields; equation 7 needs no target, and for an image
    without a label what the network predicts stands for it. B are the images that training has besides its own
    (`Train(unlabelled=...)`, `Context.unlabelled`), and the share 1 - labelled of its own, always the same ones, whose
    labels are not looked at: the usual experiment.
    x (N, C, H, W) in [0, 1], y (N,) -> the terms of `inner`. Raises InputError for images outside [0, 1] and labels out
    of range (hidden ones: negative); SpecError for another kind of `inner`.
    Source: Boopathy et al. 2020, section 6 (proposed, not tried). Deviations: everything beyond the proposal is ours.
    """

    inner: DefenceField = field(default_factory=InterpretabilityAware)
    labelled: Share = 1.0

    moves: ClassVar[str] = "map_discrepancy"

    def check(self) -> None:
        """Refuse a defence that has no discrepancy."""
        if not isinstance(self.inner, InterpretabilityAware):
            raise SpecError("semi_supervised.inner must be interpretability_aware, or one of its names such as int")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        ctx = ctx or Context()
        x = check_images(x)
        some(len(x), "semi-supervised training")
        y = check_labels(y, len(x), single=True)
        known = Stream(ctx.seed, ctx.positions).child("labelled").uniform(x[:, 0, 0, 0], ()) < self.labelled
        places = torch.arange(len(x), device=x.device) if ctx.positions is None else ctx.positions.to(x.device)
        if ctx.unlabelled is not None and len(ctx.unlabelled):
            more = check_images(ctx.unlabelled)
            apart = _APART + torch.arange(len(more), device=x.device)
            x, places = torch.cat([x, more]), torch.cat([places, apart])
            y, known = (torch.cat([part, part.new_zeros(len(more))]) for part in (y, known))
        if not bool(known.all()):
            with frozen(model), torch.no_grad():
                y = torch.where(known, y, model(x).argmax(1))
        inner = cast(InterpretabilityAware, self.inner)
        found = inner.losses(model, x, y, replace(ctx, positions=places, unlabelled=None))
        share = known.to(found.clean) / known.sum().clamp(min=1)
        moved = {"discrepancy": inner.weight * found.moved.mean()}
        if inner.adversarial:
            return {
                "cross_entropy": torch.zeros_like(moved["discrepancy"]),
                "adversarial_cross_entropy": (share * found.attacked).sum(),
            } | moved
        return {"cross_entropy": (share * found.clean).sum()} | moved
