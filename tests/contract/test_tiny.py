"""The mechanism that makes small instances: nested, in tuples, and with a helpful word where it cannot."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pytest

from pellucid.attacks import FGSM, PGD
from pellucid.protocols import Attack, AttackField, InterpreterField
from pellucid.spec import Flag, member
from pellucid.transforms import LowPass

from .defence_checks import Offset
from .tiny import choices, in_norms, options, resized, substituted, tiny


@dataclass(frozen=True, kw_only=True)
class Composite:
    """Holds what future methods may hold."""

    attacks: tuple[AttackField, ...]
    maybe: Annotated[Attack, member("attack")] | None = None
    other: AttackField = field(default_factory=lambda: PGD(eps=0.3, restarts=5))
    interpreter: InterpreterField
    eps: float
    norm: Literal["linf", "l2"]
    rule: Literal["a", "b"] | None = None
    flag: Flag = True
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "composite")


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Needs something that nobody can guess."""

    wavelength: float
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "unknown")


def test_members_are_filled_and_made_cheap() -> None:
    made = tiny(Composite, norm="l2", eps=1.0)
    assert [type(a) for a in made.attacks] == [PGD, PGD]
    assert [a.steps for a in (*made.attacks, made.other)] == [3, 3, 3]
    assert made.other.restarts == 1
    assert made.other.eps == 0.3
    assert made.maybe is None
    assert resized(made, {"steps": 20}).attacks[1].steps == 20


def test_every_norm_and_choice_is_found() -> None:
    assert [(m.norm, m.eps) for m in in_norms(Composite)] == [("linf", 0.1), ("l2", 1.0)]
    assert choices(Composite, "rule") == ("a", "b")
    assert [name.rpartition("-")[2] for name, _ in options(in_norms(Composite)[0])] == [
        "rule=a",
        "rule=b",
        "flag=False",
    ]
    assert choices(FGSM, "target") == ("next", "random", "runner_up", "least_likely")


def test_one_of_several_ways_to_say_it_is_filled() -> None:
    assert tiny(LowPass).radius is not None
    assert tiny(LowPass, share=0.5).radius is None


def test_attacks_are_replaced_at_any_depth() -> None:
    stub = Offset()
    made = substituted((tiny(Composite, norm="linf"),), "interpreter", stub)[0]
    assert made.interpreter is stub
    assert substituted(made, "attack", stub) is stub


def test_what_cannot_be_made_says_what_to_do() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"Unknown\.wavelength .*NEEDED in tests/contract/tiny\.py"):
        tiny(Unknown)
