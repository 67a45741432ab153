"""Every registered defence, with every listed choice, against every promise."""

from collections.abc import Callable
from typing import Any

import pytest

from . import defence_checks
from .tiny import cases, option_cases
from .worlds import World

CHECKS = [check for name, check in vars(defence_checks).items() if name.startswith("check_")]
# A choice may weaken what the default is tuned for.
CHOICE_CHECKS = [c for c in CHECKS if c is not defence_checks.check_moves_what_it_is_there_to_move]


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
@pytest.mark.parametrize("defence", cases("defence"))
def test_defence(defence: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(defence, world)


@pytest.mark.parametrize("check", CHOICE_CHECKS, ids=_name)
@pytest.mark.parametrize("defence", option_cases("defence"))
def test_choice(defence: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(defence, world)
