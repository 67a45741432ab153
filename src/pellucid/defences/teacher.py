"""The teacher of a defence that learns from one: a task that makes a network, or None until training names it."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from pellucid.spec import kind_of, member

TeacherField = Annotated[Any, member("task")] | None


def with_teachers(defence: Any, teach: Callable[[Any], Any]) -> Any:
    """Return the defence, and those it is made of, with teach(defence) wherever a teacher is needed and not named."""
    if isinstance(defence, tuple):
        return tuple(with_teachers(part, teach) for part in defence)
    if kind_of(defence) != "defence":
        return defence
    changed = {}
    for field in dataclasses.fields(defence):
        held = getattr(defence, field.name)
        new = teach(defence) if field.name == "teacher" and held is None else with_teachers(held, teach)
        if new is not held and new != held:
            changed[field.name] = new
    return dataclasses.replace(defence, **changed) if changed else defence
