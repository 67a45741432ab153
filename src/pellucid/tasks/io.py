"""What a task sees of the world while it runs: its inputs, its data, its scratch folder, who is watching."""

import functools
import glob
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

import pellucid
from pellucid.data.split import Split
from pellucid.errors import DataError, PellucidError, SpecError
from pellucid.explain import numbered, probabilities
from pellucid.maths.passes import Passes, counted, note_backward, note_forward
from pellucid.maths.resume import keeping
from pellucid.models import Classifier, load_classifier
from pellucid.protocols import Data, Progress, silent
from pellucid.spec import digest, to_dict
from pellucid.store import Result, Store, read_json, read_tensors, write_json, write_tensors

WORKERS, DESCRIPTION = "workers.json", "task.json"
_PIECE = "--"  # between the name of a part and that of a piece of it


@runtime_checkable
class Task(Protocol):
    """One unit of work: a frozen dataclass whose fields that are tasks are its inputs."""

    _registered_as: ClassVar[tuple[str, str]]

    def run(self, io: "Io") -> list[str]:
        """Do the work in `io.scratch` and return the names of the files that are the result."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A task whose network is not in its folder but made whenever it is needed."""

    def open(self, io: "Io") -> Classifier:
        """Return the network in eval mode, on the device."""
        ...


@dataclass(frozen=True)
class Options:
    """How to run, never what: nothing here changes a digest."""

    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 60.0
    tensorboard: Path | None = None  # where training writes its figures, in a folder of its own
    asked: Any = None  # the task that this run was asked for, which tells what its parts are for

    def __post_init__(self) -> None:
        """Refuse thread counts that torch cannot take, and devices that are not there."""
        if self.threads is not None and not 1 <= self.threads <= 4096:
            raise SpecError(f"threads must be 1 to 4096, not {self.threads}")
        try:
            if self.resolved_device().type not in ("cpu", "cuda"):
                raise RuntimeError("a kind of device that nothing here was tried on")
            torch.empty(0, device=self.resolved_device())
        except (RuntimeError, AssertionError):
            raise SpecError(f"there is no device {self.device!r} here; cpu always works") from None

    def resolved_device(self) -> torch.device:
        """Return the device asked for; "auto" is CUDA where there is one."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Io:
    """Handed to `task.run`."""

    task: Any
    store: Store
    options: Options = field(default_factory=Options)
    progress: Progress = silent
    data_used: dict[str, Any] = field(default_factory=dict)
    opened: dict[str, Result] = field(default_factory=dict)
    live: dict[str, Classifier] = field(default_factory=dict)  # networks that were made, not read
    lent: float = 0.0  # seconds of work of earlier processes that the part at hand is built on

    @property
    def scratch(self) -> Path:
        """The folder of this task's parts; what is in it survives a kill."""
        return self.store.scratch(self.task)

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.options.resolved_device()

    def result(self, task: Any) -> Result:
        """Return the finished result of an input, its files verified once."""
        key = digest(task)
        if key not in self.opened:
            self.opened[key] = self.store.open(task)
        return self.opened[key]

    def network(self, task: Any) -> Classifier:
        """Return the network that a task made, in eval mode, on the device."""
        if not isinstance(task, Opens):
            return load_classifier(self.result(task).folder).to(self.device)
        key = digest(cast(Any, task))
        if key not in self.live:
            self.live[key] = task.open(self)
        return self.live[key]

    def classes_fit(self, task: Any, split: Split) -> tuple[str, ...]:
        """Return the names of the network's classes; raise DataError if it was made for other images or classes.

        Of a network that does not say what it was made for, the classes are counted on one image; images without
        labels go with any number of classes.
        """
        config = self.result(task).json("config.json")
        shape, names, labelled = config["shape"], config["classes"], split.labelled
        if names is None:
            names = numbered(first_scores(self.network(task), split, self.device).shape[1])
            names = split.classes if labelled and len(names) == len(split.classes) else names
        if (shape and tuple(shape) != split.shape) or (labelled and len(names) != len(split.classes)):
            made_for = f"images {tuple(shape)} of {len(names)} classes" if shape else f"{len(names)} classes"
            has = f"{split.shape} of {len(split.classes)} classes" if labelled else f"{split.shape}"
            raise DataError(f"the network was made for {made_for}; {split.name} has images {has}")
        return tuple(names)

    def data(self, spec: Data, part: str, role: str | None = None) -> Split:
        """Return one part of a data set; raise DataError if it is not what earlier results were made from.

        It is recorded under its part; a second data set needs a role of its own, or would be recorded in its place.
        """
        split = spec.load(part)
        self.store.pin_data(spec, part, split.sha256)
        self.data_used[role or part] = {
            "name": split.name,
            "sha256": split.sha256,
            "images": len(split),
            "cut": split.cut,
            "source": split.source,
            "value_range": list(split.value_range),
            **({"skipped": list(split.skipped)} if split.skipped else {}),
        }
        return split

    def spend(self, key: str, seconds: float, passes: Passes) -> None:
        """Record what a part of the work cost, so that a resumed task knows its whole cost."""
        ledger = self.ledger()
        ledger[key] = {"seconds": seconds, "forward": passes.forward, "backward": passes.backward}
        write_json(self.scratch / "ledger.json", ledger)

    def part(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of a part on the CPU, made once and then read: how tasks are resumed.

        Work inside that is cut into pieces (`maths.resume.kept`) is remembered piece by piece until the part is
        whole. A part's cost includes that of its pieces, also of those that an earlier process made. A name that
        comes again stands for other work (an attack called in a loop): that is done, and not remembered.
        """
        with keeping(partial(self._piece, name, set())):
            tensors = self._made(name, make)
        for path in self.scratch.glob(f"{glob.escape(name)}{_PIECE}*.safetensors"):
            path.unlink(missing_ok=True)
        return tensors

    def _piece(self, part: str, asked: set[str], name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if name in asked:
            with keeping(lambda name, work: work()):
                return make()
        asked.add(name)
        key = f"{part}{_PIECE}{name}"
        cost = self.ledger().get(key) if self._path(key).is_file() else None
        if cost is not None:  # made by an earlier process: what it cost belongs to the part
            note_forward(int(cost["forward"]))
            note_backward(int(cost["backward"]))
            self.lent += cost["seconds"]
        return {name: values.to(self.device) for name, values in self._made(key, make).items()}

    def _made(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if self._path(key).is_file():
            return read_tensors(self._path(key))
        began, lent = time.monotonic(), self.lent
        with counted() as passes:
            tensors = {name: values.detach().cpu() for name, values in make().items()}
        # The cost first: killed in between, the part is made, and counted, again.
        self.spend(key, time.monotonic() - began + self.lent - lent, passes)
        write_tensors(self._path(key), tensors)
        return tensors

    def _path(self, key: str) -> Path:
        return self.scratch / f"{key}.safetensors"

    def ledger(self) -> dict[str, dict[str, float]]:
        """Return what the parts have cost so far."""
        path = self.scratch / "ledger.json"
        found: dict[str, dict[str, float]] = read_json(path) if path.is_file() else {}
        return found

    def sign(self) -> None:
        """Record what was asked for, and who works on it from here on: one process after another may make its parts."""
        write_json(self.scratch / DESCRIPTION, to_dict(self.options.asked or self.task))
        path = self.scratch / WORKERS
        known = read_json(path)["workers"] if path.is_file() else []
        if self._worker() not in known:
            write_json(path, {"workers": [*known, self._worker()]})

    def unbegun(self) -> bool:
        """Say whether nothing has been made yet but the signature."""
        return all(path.name in (WORKERS, DESCRIPTION) for path in self.scratch.iterdir())

    def _worker(self) -> dict[str, Any]:
        return {
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "device": device_name(self.device),
            "commit": commit(),
        }

    def meta(self) -> dict[str, Any]:
        """Return everything that is recorded beside a result: seed, versions, threads, device, commit, cost, data.

        "earlier" lists other versions, threads, devices or commits that parts of it were made with, if any.
        """
        costs = [cost for key, cost in self.ledger().items() if _PIECE not in key]
        path = self.scratch / WORKERS
        workers = read_json(path)["workers"] if path.is_file() else []
        earlier = [worker for worker in workers if worker != self._worker()]
        return {
            "seed": getattr(self.task, "seed", None),
            **self._worker(),
            **({"earlier": earlier} if earlier else {}),
            "wall_seconds": round(sum(c["seconds"] for c in costs), 3),
            "passes": {
                "forward": int(sum(c["forward"] for c in costs)),
                "backward": int(sum(c["backward"] for c in costs)),
            },
            "data": self.data_used,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def first_scores(network: Classifier, split: Split, device: torch.device) -> Tensor:
    """Return the probabilities (1, K) of the first image; raise DataError if the network cannot take such images."""
    try:
        return probabilities(network, split.images(slice(1)).to(device))
    except PellucidError:
        raise
    except Exception as error:  # somebody else's network says it in its own way
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"the network takes no images {split.shape}, as {split.name} has ({why}); pictures can be read in another "
            "size or with other channels (--size 224,224 data.channels=3)"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    import numpy
    import scipy

    return {
        "pellucid": pellucid.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def device_name(device: torch.device) -> str:
    """Return a device's name for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()})"


@functools.cache
def commit() -> str | None:
    """Return the commit of the code that runs, with a mark if it was changed since; None outside a checkout."""
    folder = Path(pellucid.__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a package installed inside somebody else's checkout
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
