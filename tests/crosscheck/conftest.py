"""Quantus and zennit name two classes of torchvision when they are imported; where it is missing, stand-ins do."""

import contextlib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

_NAMES = ("torchvision", "torchvision.models", "torchvision.models.resnet")


@contextlib.contextmanager
def stand_in_torchvision() -> Iterator[None]:
    """Let `import torchvision.models.resnet` succeed inside the block where torchvision is not installed."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    modules = {name: ModuleType(name) for name in _NAMES}
    for parent, child in itertools.pairwise(_NAMES):
        setattr(modules[parent], child.rpartition(".")[2], modules[child])
    for name in ("BasicBlock", "Bottleneck"):
        setattr(modules[_NAMES[-1]], name, type(name, (), {}))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in _NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def import_peer() -> Callable[[str], ModuleType]:
    """Return a function that imports another library, or skips the test where it is not installed."""

    def load(name: str) -> ModuleType:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            pytest.skip(f"{name} is not installed")
        with stand_in_torchvision():
            return importlib.import_module(name)

    return load
