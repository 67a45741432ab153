"""The tasks that give a network: train one, or take somebody's checkpoint."""

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from pellucid.data.split import Split
from pellucid.defences import Standard
from pellucid.errors import CheckpointError, SpecError, TrainingError
from pellucid.models import Classifier
from pellucid.models.checkpoint import (
    CONFIG,
    WEIGHTS,
    checkpoint_folder,
    load_weights,
    load_with_config,
    save_classifier,
)
from pellucid.optimisers import Adam, Optimiser
from pellucid.protocols import DataField, DefenceField, ModelField
from pellucid.rng import derive, global_seed
from pellucid.spec import NOT_HASHED, Count, Flag, Whole, brief, member, name_of, register
from pellucid.store import file_digest, write_json
from pellucid.tasks.io import Io
from pellucid.train import Run, fit

TaskField = Annotated[Any, member("task")]


def _makes_a_network(task: Any) -> Any:
    if not getattr(type(task), "makes_network", False):
        known = "train, checkpoint, imported_network"
        raise ValueError(f"a task that makes a network is needed ({known}), not {name_of(task)}")
    return task


NetworkField = Annotated[Any, AfterValidator(_makes_a_network), member("task")]


def network_name(task: Any) -> str:
    """Name the network that a task makes, for people."""
    if isinstance(task, Train):
        return f"{brief(task.model)}, {brief(task.defence)}"
    return folder_name(task.path) if isinstance(task, Checkpoint) else getattr(task, "reference", name_of(task))


def folder_name(path: str) -> str:
    """Return the name of a folder, a digest cut to what people can tell apart.

    >>> folder_name("nets/robust"), folder_name("store/train/" + 64 * "0")
    ('robust', '000000000000')
    """
    name = Path(path).name
    return name[:12] if re.fullmatch("[0-9a-f]{64}", name) else name


@register("task", "train")
@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one network; the result is a folder that `load_classifier` reads, with its training history.

    Exactly one of `steps` and `epochs` is given. `init` starts from a finished network (another Train, or a
    Checkpoint) with a fresh optimiser: post-processing.
    """

    makes_network: ClassVar[bool] = True

    data: DataField
    model: ModelField
    defence: DefenceField = field(default_factory=Standard)
    optimiser: Annotated[Optimiser, member("optimiser")] = field(default_factory=Adam)
    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 256
    shuffle: Flag = True
    log_every: Count = 100
    init: NetworkField | None = None
    seed: Whole = 0

    def check(self) -> None:
        """Refuse a length given twice or not at all."""
        if (self.steps is None) == (self.epochs is None):
            raise SpecError("task train needs exactly one of steps and epochs")

    def title(self) -> str:
        """Name the work for people."""
        return f"train {network_name(self)}"

    def total_steps(self, images: int) -> int:
        """Return the number of steps for a training set of this size."""
        return self.steps or (self.epochs or 0) * max(1, images // min(self.batch_size, images))

    def run(self, io: Io) -> list[str]:
        """Train, from the last checkpoint where there is one."""
        train, validation = io.data(self.data, "train"), io.data(self.data, "validation")
        network = self._fresh(io, train)
        try:
            done = self._fit(io, network, train, validation)
        except TrainingError as error:
            kept = io.scratch / "last_good"
            kept.mkdir(exist_ok=True)
            save_classifier(kept, network, self.model, train.shape, train.classes)
            raise TrainingError(f"{error}; it is the checkpoint {kept}") from None
        save_classifier(io.scratch, network, self.model, train.shape, train.classes)
        write_json(io.scratch / "history.json", done.history)
        io.spend("train", done.seconds, done.passes)
        return [WEIGHTS, CONFIG, "history.json"]

    def _fit(self, io: Io, network: Classifier, train: Split, validation: Split) -> Run:
        return fit(
            network,
            self.defence,
            self.optimiser,
            train,
            validation,
            steps=self.total_steps(len(train)),
            batch_size=self.batch_size,
            seed=derive(self.seed, "fit"),
            shuffle=self.shuffle,
            log_every=self.log_every,
            checkpoint=io.scratch / "checkpoint.safetensors",
            checkpoint_seconds=io.options.checkpoint_seconds,
            progress=io.progress,
        )

    def rehearse(self, io: Io) -> float:
        """Time three steps and return the seconds that all of them may take."""
        train, validation = self.data.load("train"), self.data.load("validation")
        with global_seed(0):
            network = self.model.build(*_build_arguments(train)).to(io.device)
        times: list[float] = []
        fit(
            network,
            self.defence,
            self.optimiser,
            train,
            validation,
            steps=6,  # the first warms up, the last is followed by the log
            batch_size=self.batch_size,
            seed=0,
            log_every=10**9,
            progress=lambda done, total, **numbers: times.append(time.monotonic()),
        )
        return (times[4] - times[1]) / 3 * self.total_steps(len(train))

    def _fresh(self, io: Io, train: Split) -> Classifier:
        with global_seed(derive(self.seed, "init")):
            network = self.model.build(*_build_arguments(train))
        if self.init is not None:
            start = io.network(self.init)
            load_weights(network, start.state_dict(), f"the network to start from ({name_of(self.init)})")
        return network.to(io.device)


def _build_arguments(split: Split) -> tuple[int, tuple[int, int], int]:
    channels, height, width = split.shape
    return channels, (height, width), len(split.classes)


@register("task", "checkpoint")
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network that is already there: a folder with model.safetensors and config.json, known by its content."""

    makes_network: ClassVar[bool] = True

    sha256: str
    path: Annotated[str, "where it was read"] = field(default="", metadata=dict(NOT_HASHED))

    @classmethod
    def of(cls, path: str | Path) -> "Checkpoint":
        """Describe the network in a folder; raise CheckpointError if it cannot be read."""
        folder = checkpoint_folder(Path(path))
        load_with_config(folder)
        return cls(sha256=file_digest(folder / WEIGHTS) + file_digest(folder / CONFIG), path=str(folder))

    def title(self) -> str:
        """Name the work for people."""
        return f"read {folder_name(self.path)}"

    def run(self, io: Io) -> list[str]:
        """Copy the network into the store."""
        folder = Path(self.path)
        if Checkpoint.of(folder).sha256 != self.sha256:
            raise CheckpointError(f"{folder} is not the network it was when the task was described")
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(folder / name, io.scratch / name)
        return [WEIGHTS, CONFIG]


def stand_in(io: Io, task: Any, split: Split) -> Classifier:
    """Return a network as large as the one a task will make: enough to time, before it is trained."""
    if not isinstance(task, Train):
        return io.network(task)
    with global_seed(0):
        return task.model.build(*_build_arguments(split)).to(io.device).eval()
