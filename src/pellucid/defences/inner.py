"""The attack inside a defence, at the size it has at this point of the training run."""

import contextlib
from collections.abc import Iterator
from typing import Annotated

from torch import nn

from pellucid.attacks import with_eps
from pellucid.errors import InputError
from pellucid.guard import frozen, recording
from pellucid.protocols import Attack, Context
from pellucid.rng import Stream
from pellucid.schedule import Ramp
from pellucid.spec import member

RampField = Annotated[Ramp, member("ramp")] | None


def at_this_step(attack: Attack, eps: Ramp | None, ctx: Context) -> Attack | None:
    """Return the attack with the ramp's eps, None where that is 0: then no attack is run and x' = x."""
    now = attack if eps is None else with_eps(attack, eps(ctx))
    return None if getattr(now, "eps", None) == 0 else now


def check_ramp(attack: Attack, eps: Ramp | None) -> None:
    """Refuse a ramp for an attack that has no eps."""
    if eps is not None:
        with_eps(attack, 0.0)


@contextlib.contextmanager
def climbing(model: nn.Module, attack: Attack, rng: Stream) -> Iterator[None]:
    """Freeze the network in the attack's mode while it maximises an objective of a defence's own."""
    with frozen(model, getattr(attack, "mode", "eval"), seed=rng.child("dropout").seed), recording():
        yield


def some(images: int, what: str) -> None:
    """Refuse an empty batch, of which there is no mean loss."""
    if not images:
        raise InputError(f"{what} needs at least one image")
