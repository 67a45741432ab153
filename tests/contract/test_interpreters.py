"""Every registered interpreter, with every listed choice, against every promise."""

from collections.abc import Callable
from typing import Any

import pytest

from pellucid.errors import InputError
from pellucid.interpreters import CAM

from . import interpreter_checks
from .interpreter_checks import TARGET, Headless, N
from .tiny import cases, option_cases
from .worlds import World, pictures

CHECKS = [check for name, check in vars(interpreter_checks).items() if name.startswith("check_")]
# With another choice (a score, say) a map may rightly look elsewhere, or not depend on the target.
BASE_ONLY = (
    interpreter_checks.check_looks_at_the_object,
    interpreter_checks.check_depends_on_the_target,
    interpreter_checks.check_leaks_nothing,
)
CHOICE_CHECKS = [check for check in CHECKS if check not in BASE_ONLY]


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
@pytest.mark.parametrize("method", cases("interpreter"))
def test_interpreter(method: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(method, world)


@pytest.mark.parametrize("check", CHOICE_CHECKS, ids=_name)
@pytest.mark.parametrize("method", option_cases("interpreter"))
def test_choice(method: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(method, world)


def test_cam_needs_a_declared_head() -> None:
    with pytest.raises(InputError, match="linear head"):
        CAM()(Headless().double(), pictures(N), TARGET)
