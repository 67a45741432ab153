"""Long work in pieces that a caller may remember, so that it goes on where it was interrupted.

A method cuts its work by `kept("name", work)` and knows nothing of files; who runs it may install a memory.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from torch import Tensor

Work = Callable[[], dict[str, Tensor]]
Memory = Callable[[str, Work], dict[str, Tensor]]


def _forgetful(name: str, work: Work) -> dict[str, Tensor]:
    return work()


_memory: ContextVar[Memory] = ContextVar("memory", default=_forgetful)
_place: ContextVar[tuple[str, ...]] = ContextVar("place", default=())


@contextlib.contextmanager
def keeping(memory: Memory) -> Iterator[None]:
    """Have memory(name, work) answer for every piece of work inside the block: with its result, stored or made."""
    tokens = _memory.set(memory), _place.set(())
    try:
        yield
    finally:
        _memory.reset(tokens[0])
        _place.reset(tokens[1])


@contextlib.contextmanager
def within(name: str) -> Iterator[None]:
    """Give the pieces inside the block names of their own, where the same work is done several times."""
    token = _place.set((*_place.get(), name))
    try:
        yield
    finally:
        _place.reset(token)


def kept(name: str, work: Work) -> dict[str, Tensor]:
    """Return the result of a piece of work, remembered or made now; pieces may contain pieces.

    >>> import torch
    >>> memory = {}
    >>> with keeping(lambda name, work: memory.setdefault(name, work())), within("eps-0.1"):
    ...     found = kept("stage", lambda: {"x": torch.zeros(2)})
    >>> list(memory)
    ['eps-0.1.stage']
    """

    def inside() -> dict[str, Tensor]:
        with within(name):
            return work()

    return _memory.get()(".".join((*_place.get(), name)), inside)
