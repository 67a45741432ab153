"""The fog attack."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.attacks.objective import Loss, Size
from pellucid.attacks.unforeseen import Effect, Form, Unforeseen, middle, sixteens
from pellucid.maths.plasma import plasma, unit_range
from pellucid.protocols import TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, register

_WHITE = 255.0


@register("attack", "fog")
@dataclass(frozen=True, kw_only=True)
class Fog(Unforeseen):
    """Fog whose every random number is chosen by the attack.

    x' = (x + (eps/255) f) / (m + eps/255), m the brightest value of each channel of x; f in [0, 1] is the middle part
    of a diamond-square map of side 2^(floor(log2 r) + 1), decay 2, shifted and scaled to [0, 1] per image.
    v <- clip(v + step_size sign(grad_v L), 0, 1) for all numbers v of the map, which start uniform in [0, 1].

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. eps is in units of 255 (Kang et al.'s pixels),
    step_size in units of v; None means eps / sqrt(steps), Boopathy et al.'s choice, which sends every number to an end
    of [0, 1] at each step. r is the longer side, rounded up to a multiple of 16 (as the authors pad MNIST). The fog is
    always random at the start. At eps = 0 the image is not itself but x / m (a black channel stays black).
    form="code" takes, for the points on edges, the square two places away instead of the one beside it, as the
    released code does. Raises InputError for images outside [0, 1] and labels out of range.
    Source: Kang et al. 2019 and their released code; Boopathy et al. 2020, Table 2 (eps, steps, step size).
    Deviations: the released code shifts and scales the maps of a batch together, here each on its own in both forms,
    since an image's result must not depend on its batch; other sizes than 28, 32 and 224 are this library's rule.
    """

    eps: Size = 2048.0
    step_size: Size | None = None
    steps: Count = 200
    loss: Loss = "cross_entropy"
    target: TargetRule | None = None
    form: Form = "paper"

    def effect(self, x: Tensor, rng: Stream) -> Effect:
        """Return the fog over images x."""
        height, width = x.shape[2:]
        side = 2 << (sixteens(max(height, width)).bit_length() - 1)
        eps, step, reach = self.eps / _WHITE, self._step(self.eps), 1 if self.form == "paper" else 2
        brightest = x.amax((2, 3), keepdim=True) + eps
        share = torch.where(brightest > 0, brightest, torch.ones_like(brightest))

        def render(v: Tensor, rows: Tensor) -> Tensor:
            fog = unit_range(plasma(v, side, reach=reach))[:, None, middle(side, height), middle(side, width)]
            return ((x[rows] + eps * fog) / share[rows]).clamp(0, 1)

        def move(v: Tensor, slope: Tensor, values: Tensor, rows: Tensor) -> Tensor:
            return (v + step * torch.sign(slope)).clamp(0, 1)

        return Effect(rng.child("fog").uniform(x, (side * side - 1,)), render, move)
