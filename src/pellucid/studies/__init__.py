"""Whole experiments, one file each: those of papers, with their printed numbers as data, and some of our own."""

from collections.abc import Callable
from typing import Any

from pellucid import tasks as _tasks  # a study's description may hold any task
from pellucid.errors import SpecError
from pellucid.studies import (
    boopathy2020,
    evidence,
    gallery,
    jakubovitz2018,
    ross2018,
    stability,
    strength,
    unforeseen,
    zhang2019,
)

SCALES = ("smoke", "small", "paper")
STUDIES: dict[str, Callable[[str], Any]] = {
    "ross2018": ross2018.study,
    "boopathy2020": boopathy2020.study,
    "jakubovitz2018": jakubovitz2018.study,
    "zhang2019": zhang2019.study,
    "strength": strength.study,
    "unforeseen": unforeseen.study,
    "stability": stability.study,
    "evidence": evidence.study,
    "gallery": gallery.study,
}

__all__ = ["SCALES", "STUDIES", "find_study"]
_ = _tasks


def find_study(name: str, scale: str) -> Any:
    """Return the task that is a whole study at a scale; raise SpecError that lists the known ones."""
    if name not in STUDIES:
        raise SpecError(f"there is no study called {name!r}; known: {', '.join(STUDIES)}")
    if scale not in SCALES:
        raise SpecError(f"there is no scale called {scale!r}; known: {', '.join(SCALES)}")
    return STUDIES[name](scale)
