"""What the attacks of Kang et al. 2019 share: they climb in the variables of an effect that is drawn on the image."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Loss, attacking, label_objective, plain
from pellucid.errors import InputError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, Move, ascend
from pellucid.protocols import Objective, TargetRule
from pellucid.rng import Stream

Form = Literal["paper", "code"]  # the formulas, or what the authors' released code does where it differs


def _full_precision(x: Tensor) -> torch.autocast:
    """Return a block in which images are drawn in their own dtype, also where the network runs under autocast."""
    return torch.autocast(x.device.type, enabled=False)


class Effect(NamedTuple):
    """An effect on a batch: where its variables (N, ...) start, how they are drawn, and how they move.

    render(variables, rows) gives the images of these rows, in [0, 1].
    """

    start: Tensor
    render: Callable[[Tensor, Tensor], Tensor]
    move: Move


class Unforeseen:
    """The two doors of an attack that is an `Effect`; the image that comes back is drawn from the last variables."""

    step_size: float | None
    steps: int
    loss: Loss
    target: TargetRule | None

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
        """Return the adversarial images."""
        with attacking(model, x, y, target, self.target, rng) as setup:
            return self._climb(label_objective(model, setup, self.loss), setup.x, setup.rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x with the effect that maximises any per-example objective."""
        return self._climb(plain(objective), check_images(x.detach()), rng or Stream(), leave=False)

    def unoptimised(self, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x with the effect as it is drawn before the first step: what the attack climbs from."""
        x = check_images(x.detach())
        if not len(x):
            return x.clone()
        with _full_precision(x):
            effect = self.effect(x, rng or Stream())
            return effect.render(effect.start, torch.arange(len(x), device=x.device))

    def effect(self, x: Tensor, rng: Stream) -> Effect:
        """Return the effect on images x (N, C, H, W), N at least 1."""
        raise NotImplementedError

    def _climb(self, evaluate: Evaluate, x: Tensor, rng: Stream, leave: bool) -> Tensor:
        if not len(x):
            return x.clone()
        with _full_precision(x):
            effect = self.effect(x, rng)

        def draw(point: Tensor, rows: Tensor) -> Tensor:
            with _full_precision(x):
                return effect.render(point, rows)

        last = ascend(
            lambda point, rows: evaluate(draw(point, rows), rows), effect.start, effect.move, self.steps, leave=leave
        )
        with torch.no_grad():
            return draw(last.x, torch.arange(len(x), device=x.device))

    def _step(self, eps: float) -> float:
        """Return the step size: that of Boopathy et al.'s runner where none was given."""
        return eps / self.steps**0.5 if self.step_size is None else self.step_size


def check_grey_or_rgb(x: Tensor, name: str) -> None:
    """Raise InputError for images that are neither grey nor RGB."""
    if x.shape[1] not in (1, 3):
        raise InputError(f"attack {name} needs the colours of an image: 1 or 3 channels, not {x.shape[1]}")


def middle(room: int, size: int) -> slice:
    """Return the middle `size` places of `room` (the odd place is left over at the end)."""
    return slice((room - size) // 2, (room - size) // 2 + size)


def sixteens(size: int) -> int:
    """Return the next multiple of 16: 28 gives 32, as the authors pad MNIST."""
    return -(-size // 16) * 16
