"""Remarks of a method about the images of one call, beside its result: which stage fooled them, what looked wrong."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor

Notes = dict[str, Tensor]

_open: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextlib.contextmanager
def noted() -> Iterator[Notes]:
    """Collect the notes made inside the block, one tensor (N,) a name; the innermost block alone hears them.

    A method made of others listens to them by a block of its own, and passes on what holds for its own images.
    """
    notes: Notes = {}
    token = _open.set(notes)
    try:
        yield notes
    finally:
        _open.reset(token)


def note(name: str, values: Tensor) -> None:
    """Leave a note about every image of the call, (N,); nobody may be listening."""
    notes = _open.get()
    if notes is not None:
        notes[name] = values.detach()


def listening() -> bool:
    """Say whether notes are collected: who listens to remarks needs no warning of the same."""
    return _open.get() is not None
