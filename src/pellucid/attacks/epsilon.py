"""Moving an attack's eps: along a curve, or up a ramp during training."""

import dataclasses
from typing import Any

from pellucid.errors import SpecError
from pellucid.protocols import Attack
from pellucid.spec import kind_of, name_of


def has_eps(attack: Attack) -> bool:
    """Say whether an attack is described by the size of its perturbation."""
    described: Any = attack
    fields = dataclasses.fields(described) if dataclasses.is_dataclass(described) else ()
    return hasattr(attack, "with_eps") or any(f.name == "eps" for f in fields)


def with_eps(attack: Attack, eps: float) -> Attack:
    """Return the attack with another eps, everything else as it is.

    An attack made of others says how by a method `with_eps(eps)`. Raises SpecError for attacks without eps.
    """
    if not has_eps(attack):
        name = name_of(attack) if kind_of(attack) else type(attack).__name__
        raise SpecError(f"attack {name} has no eps to vary")
    if hasattr(attack, "with_eps"):
        changed: Attack = attack.with_eps(eps)
        return changed
    described: Any = attack
    replaced: Attack = dataclasses.replace(described, eps=eps)
    return replaced
