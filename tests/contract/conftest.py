"""One world per session."""

import pytest

pytest.register_assert_rewrite("tests.contract.worlds")

from .worlds import World  # noqa: E402


@pytest.fixture(scope="session")
def world() -> World:
    return World()
