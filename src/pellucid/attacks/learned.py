"""Attacks that learn from a set of images before they change any: what they promise, and how they are used."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pellucid.attacks.objective import attacking
from pellucid.errors import InputError
from pellucid.protocols import Attack
from pellucid.rng import Stream

State = Mapping[str, Tensor]


@runtime_checkable
class Learner(Protocol):
    """An attack that learns what it does to images from many of them: a universal perturbation, a generator.

    A plain call learns from the images it is handed and changes the same ones. `fit_images` is how many training
    images an evaluation teaches it with.
    """

    fit_images: int

    def fit(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: Stream | None = None) -> dict[str, Tensor]:
        """Return what the images taught."""
        ...

    def apply(self, x: Tensor, state: State) -> Tensor:
        """Return other images, changed by what was learned."""
        ...


@dataclass(frozen=True)
class Taught:
    """A learner and what it learned at each eps (None: as it is described): an attack like any other."""

    learner: Learner
    states: Mapping[float | None, State]
    eps: float | None = None

    def with_eps(self, eps: float) -> "Taught":
        """Return it with what was learned at another eps; raise InputError where nothing was."""
        if eps not in self.states:
            raise InputError(f"nothing was learned at eps {eps:g}")
        return replace(self, eps=eps)

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
        """Return the changed images; the model and the labels play no part any more."""
        with attacking(model, x, y, target, None, rng) as setup:
            return self.learner.apply(setup.x, self.states[self.eps])

    def maximise(self, objective: object, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: what was learned was learned for the loss."""
        raise InputError("an attack that has learned climbs no other objective")


def is_learner(attack: Attack | None) -> bool:
    """Say whether an attack has to be taught before it changes images it has not seen."""
    return hasattr(attack, "fit")
