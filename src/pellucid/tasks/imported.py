"""Networks that are no checkpoints: made by code that somebody named."""

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import nn

from pellucid.errors import CheckpointError, PellucidError, SpecError
from pellucid.models import Classifier, adapt
from pellucid.models.checkpoint import CONFIG
from pellucid.spec import Reals, echo, register
from pellucid.store import write_json
from pellucid.tasks.io import Io

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (bool, int, float, str, tuple, type(None))
_named: set[str] = set()  # what was named in this process: nothing else is imported

PerChannel = Annotated[Reals, BeforeValidator(lambda value: (value,) if isinstance(value, (int, float)) else value)]


def is_reference(word: str) -> bool:
    """Say whether a word names an attribute of a module, as in "package.module:attribute"."""
    return _REFERENCE.fullmatch(word) is not None


@register("task", "imported_network")
@dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """A network that code makes: `reference` is package.module:attribute.

    The attribute is a Classifier, any module from images to logits, or what returns one when it is called without
    arguments. mean, std, feature_layer and head are as for `models.adapt`. The network is known by its sha256: of
    the reference, its structure as torch prints it, the source files of its classes, the numbers and words that its
    modules hold, and every weight and buffer; functions of other files are not seen.
    It is made again whenever it is needed and refused if it then is another one, as with random weights that
    nobody seeded. Code runs only where `of` named it in the same process, never because a description on disk does.
    """

    makes_network: ClassVar[bool] = True

    reference: str
    mean: PerChannel = (0.0,)
    std: PerChannel = (1.0,)
    feature_layer: str | None = None
    head: str | None = None
    sha256: str

    def check(self) -> None:
        """Refuse what is no reference."""
        if not is_reference(self.reference):
            raise SpecError(f"{echo(self.reference)} does not name a network; write package.module:attribute")

    @classmethod
    def of(cls, reference: str, **options: Any) -> "ImportedNetwork":
        """Describe the network that a reference names, which is imported; raise SpecError where that fails."""
        if unknown := sorted(options.keys() - {"mean", "std", "feature_layer", "head"}):
            raise SpecError(f"{reference} takes mean, std, feature_layer and head, not {echo(unknown[0])}")
        task = cls(reference=reference, sha256="", **options)
        _named.add(reference)
        return replace(task, sha256=_identity(reference, task._make()))

    def title(self) -> str:
        """Name the work for people."""
        return f"import {self.reference}"

    def open(self, io: Io) -> Classifier:
        """Return the network in eval mode on the device; raise CheckpointError if it is not what was described."""
        network = self._make()
        if _identity(self.reference, network) != self.sha256:
            raise CheckpointError(
                f"{self.reference} is not the network it was when the task was described: its weights must be the same "
                "every time it is made, so load them, or seed them (torch.manual_seed)"
            )
        return network.eval().to(io.device)

    def run(self, io: Io) -> list[str]:
        """Record what is known of the network; the network itself stays in its code."""
        config = {"imported": self.reference, "shape": None, "classes": _class_names(self.open(io))}
        write_json(io.scratch / CONFIG, config)
        return [CONFIG]

    def _make(self) -> Classifier:
        if self.reference not in _named:
            raise SpecError(
                f"{self.reference} is code, which runs only where it is named: on the command line, or by "
                "ImportedNetwork.of in Python"
            )
        mean, std = (value[0] if len(value) == 1 else value for value in (self.mean, self.std))
        return adapt(_found(self.reference), mean=mean, std=std, feature_layer=self.feature_layer, head=self.head)


def _found(reference: str) -> nn.Module:
    """Import and return the module that a reference names or makes."""
    module, _, attribute = reference.partition(":")
    try:
        with _current_folder():
            found = attrgetter(attribute)(importlib.import_module(module))
            made = found if isinstance(found, nn.Module) or not callable(found) else found()
    except PellucidError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code: anything may happen in it
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise SpecError(f"{reference} cannot be imported ({why[:300]})") from error
    if not isinstance(made, nn.Module):
        raise SpecError(f"{reference} must be a torch module, or return one when called; it is {echo(made)}")
    return made


@contextmanager
def _current_folder() -> Iterator[None]:
    """Look for modules in the current folder first, as `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _identity(reference: str, network: Classifier) -> str:
    total = hashlib.sha256(f"{reference}\n{_ADDRESS.sub('', repr(network))}\n".encode())
    for path in _sources(reference, network):
        total.update(path.read_bytes())
    for name, module in network.named_modules():  # numbers and words that forward passes may read
        plain = {k: v for k, v in vars(module).items() if k != "training" and isinstance(v, _PLAIN)}
        total.update(f"{name} {sorted(plain.items(), key=lambda pair: pair[0])}\n".encode())
    for name, tensor in sorted([*network.named_parameters(), *network.named_buffers()], key=lambda pair: pair[0]):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _sources(reference: str, network: Classifier) -> list[Path]:
    """Return the files that the network's classes come from, torch's own left out: its version is recorded anyway."""
    own = Path(torch.__file__).parent
    found = {getattr(sys.modules.get(reference.partition(":")[0]), "__file__", None)}
    for cls in {type(module) for module in network.modules()}:
        try:
            found.add(inspect.getsourcefile(cls))
        except (TypeError, OSError):  # made where no file is, as in an interactive session
            continue
    paths = {Path(name) for name in found if name}
    return sorted(path for path in paths if path.is_file() and own not in path.parents)


def _class_names(network: Classifier) -> list[str] | None:
    """Return the names of the classes where the module has them, as Hugging Face's configurations do."""
    known = getattr(getattr(getattr(network, "module", None), "config", None), "id2label", None)
    if not isinstance(known, dict) or set(known) != set(range(len(known))) or not known:
        return None
    return [str(known[number]) for number in range(len(known))]
