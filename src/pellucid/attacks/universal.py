"""One perturbation for all images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from pellucid.attacks.deepfool import DeepFool
from pellucid.attacks.objective import Size, attacking
from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels, check_logits
from pellucid.maths.balls import project
from pellucid.maths.resume import kept
from pellucid.protocols import AttackField, Norm, Objective
from pellucid.rng import Stream
from pellucid.spec import Count, Share, register

_BATCH = 500  # images judged at a time


@register("attack", "universal_perturbation")
@dataclass(frozen=True, kw_only=True)
class UniversalPerturbation:
    """Learns one perturbation that changes the label of most images, and adds it to any image.

    v = 0; while the share of i with k(x_i + v) != k(x_i) is below `wanted`, at most `passes` times, for each image
    in random order with k(x_i + v) = k(x_i): r = argmin ||r|| such that k(x_i + v + r) != k(x_i), found by `inner`;
    v <- Proj_eps(v + r). k is the predicted class, Proj projects onto the ball of radius eps (linf, or l2 over all
    pixels and channels, in units of [0, 1]). x' = clip(x + v).

    `fit(model, x, y)` learns v (C, H, W) from images x (N, C, H, W) in [0, 1]; y (N,) are checked but play no
    part. `apply(x, state)` adds it to other images of the same size. A call does both on the same images, so that they
    depend on each other; stop_when_fooled leaves those that are misclassified to begin with as they are. An evaluation
    teaches it with `fit_images` training images. An image that `inner` does not fool teaches nothing, as in the
    authors' code. together > 1 is a faster variant: that many images are judged and attacked at the same v, as one
    batch, and their r are added one after another, each followed by the projection. rng draws the order.
    Costs per pass, of N images of which M keep their label: 2N + M forward passes, and M times what `inner` costs.
    Raises InputError for images outside [0, 1] or of another size than those learned from, labels out of range, target
    labels, and for `maximise`.
    Source: Moosavi-Dezfooli et al. 2017, Algorithm 1; the inner DeepFool has 10 steps as in their code.
    Deviations: x_i + v is clipped to [0, 1], and r is what the inner attack changed inside it; the paper does not clip.
    The number of passes is bounded.
    """

    eps: Size
    norm: Norm = "linf"
    inner: AttackField = field(default_factory=lambda: DeepFool(steps=10))
    wanted: Share = 0.8
    passes: Count = 10
    together: Count = 1
    fit_images: Count = 1000

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the images with the perturbation that was learned from them."""
        if target is not None:
            raise InputError("universal_perturbation leads away from the predicted classes: it takes no target labels")
        with attacking(model, x, y, None, None, rng) as setup:
            state = self._learn(model, setup.x, setup.y, setup.rng)
            out = self.apply(setup.x, state)
            if stop_when_fooled and len(out):
                right = _predicted(model, setup.x) == setup.y
                out = torch.where(right.view(-1, 1, 1, 1), out, setup.x)
            return out

    def fit(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: Stream | None = None) -> dict[str, Tensor]:
        """Return {"perturbation": v (C, H, W)}, learned from the images."""
        with attacking(model, x, y, None, None, rng) as setup:
            return self._learn(model, setup.x, setup.y, setup.rng)

    def apply(self, x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return clip(x + v)."""
        x, v = check_images(x.detach() if isinstance(x, Tensor) else x), state["perturbation"]
        if x.shape[1:] != v.shape:
            raise InputError(f"this was learned for images {tuple(v.shape)}; these are {tuple(x.shape[1:])}")
        return (x + v.to(x)).clamp(0, 1)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: what is counted are changed labels, and an objective has none."""
        raise InputError("universal_perturbation counts changed labels: it cannot maximise an objective")

    def _learn(self, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> dict[str, Tensor]:
        v = x.new_zeros(x.shape[1:])
        if not len(x):
            return {"perturbation": v}
        own = _predicted(model, x, y)
        for number in range(self.passes if self.eps > 0 else 0):
            order = torch.argsort(rng.child("order", number).uniform(x, ()), stable=True)
            found = kept(f"pass-{number}", partial(self._pass, model, x, own, v, order, rng, number))
            v = found["perturbation"]
            changed = _predicted(model, (x + v).clamp(0, 1)) != own
            if float(changed.double().mean()) >= self.wanted:
                break
        return {"perturbation": v}

    def _pass(
        self, model: nn.Module, x: Tensor, own: Tensor, v: Tensor, order: Tensor, rng: Stream, number: int
    ) -> dict[str, Tensor]:
        for rows in torch.split(order, self.together):
            v = self._teach(model, x[rows], own[rows], v, rng.take(rows).child("inner", number))
        return {"perturbation": v}

    def _teach(self, model: nn.Module, x: Tensor, own: Tensor, v: Tensor, rng: Stream) -> Tensor:
        """Return v after some images, judged and attacked at the same v."""
        moved = (x + v).clamp(0, 1)
        rows = torch.nonzero(_predicted(model, moved) == own)[:, 0]
        if not len(rows):
            return v
        start = moved[rows]
        reached = self.inner(model, start, own[rows], rng=rng.take(rows), stop_when_fooled=True)
        fooled = _predicted(model, reached) != own[rows]
        for step in (reached - start)[fooled]:
            v = project(self.norm, (v + step)[None], self.eps)[0]
        return v


def _predicted(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return the predicted classes; check the labels against their number where given."""
    found = []
    with torch.no_grad():
        for part in torch.split(x, _BATCH):
            logits = check_logits(model(part), part)
            found.append(logits.argmax(1))
    if y is not None:
        check_labels(y, len(x), logits.shape[1])
    return torch.cat(found)
