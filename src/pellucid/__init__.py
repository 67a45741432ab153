"""Train, attack, explain and judge image classifiers that must be robust and interpretable at once."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = ("attacks", "data", "defences", "interpreters", "maths", "metrics", "models", "report", "studies", "tasks")


def __getattr__(name: str) -> ModuleType:
    """Import a part of the library when it is first asked for, so that `pellucid --help` stays quick."""
    if name in _PARTS:
        return importlib.import_module(f"pellucid.{name}")
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
