"""The tasks that give a network: train one, or take somebody's checkpoint."""

import functools
import math
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator

from pellucid.averaging import AverageField
from pellucid.data.augment import AugmentationField
from pellucid.data.split import Split
from pellucid.defences import Standard, with_teachers
from pellucid.errors import CheckpointError, DataError, SpecError, TrainingError
from pellucid.models import Classifier
from pellucid.models.card import CARD, README, card, logged, markdown
from pellucid.models.checkpoint import CONFIG, WEIGHTS, checkpoint_folder, load_with_config, save_classifier
from pellucid.optimisers import Adam, Optimiser
from pellucid.protocols import AttackField, DataField, DefenceField, ModelField
from pellucid.rng import derive, global_seed
from pellucid.spec import NOT_HASHED, Count, Flag, Whole, brief, digest, member, name_of, register, to_dict
from pellucid.stopping import Stop, StopField, TargetAccuracy, metric_value
from pellucid.store import Result, file_digest, write_atomic, write_json
from pellucid.tasks.cost import Cost, Meter
from pellucid.tasks.graph import inputs
from pellucid.tasks.io import Io, versions
from pellucid.tracking import TensorBoard
from pellucid.train import Log, Loop, Precision, Recipe, Run, fit
from pellucid.watching import WATCHED
from pellucid.weights import load_weights

TaskField = Annotated[Any, member("task")]


def _makes_a_network(task: Any) -> Any:
    if not getattr(type(task), "makes_network", False):
        known = "train, checkpoint, imported_network, selection"
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

    Exactly one of `steps` and `epochs` is given. `images` takes the first so many training images only. `init` starts
    from a finished network (another Train, or a Checkpoint, somebody else's included) with a fresh optimiser:
    post-processing. A teacher that the defence needs and does not name is trained first, in the same way.
    augmentation changes the batches; average keeps a mean of networks (EMA, SWA); precision=bfloat16 is autocast;
    accumulate cuts a batch into so many parts, each a batch to the defence; watch is the attack of the logged figures
    attacked_accuracy and attacked_training_accuracy. stop ends training early and says which network is kept; keep
    names the logged figure whose best network is kept, or "last". unlabelled is a data set of which only the images of
    the training part are used, by defences that learn from them. channels_last and compiled change speed, and results
    by rounding only: they are not hashed.
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
    images: Count | None = None
    unlabelled: DataField | None = None
    augmentation: AugmentationField | None = None
    average: AverageField | None = None
    precision: Precision = "float32"
    accumulate: Count = 1
    log_every: Count = 100
    watch: AttackField | None = None
    stop: StopField | None = None
    keep: str | None = None
    init: NetworkField | None = None
    seed: Whole = 0
    channels_last: Flag = field(default=False, metadata=dict(NOT_HASHED))
    compiled: Flag = field(default=False, metadata=dict(NOT_HASHED))

    def check(self) -> None:
        """Refuse two lengths or none, figures that are not logged, teachers that are no network; name missing ones."""
        if (self.steps is None) == (self.epochs is None):
            raise SpecError("task train needs exactly one of steps and epochs")
        metrics = [self.keep or "", getattr(self.stop, "metric", "")]
        if self.watch is None and any(metric.startswith("attacked_") for metric in metrics):
            raise SpecError("task train needs watch, an attack such as pgd, to keep or stop by accuracy under attack")
        if (
            self.average is not None
            and self.average.needs_statistics
            and (self.keep not in (None, "last") or self.stop)
        ):
            raise SpecError(
                f"task train cannot choose the best network of a run by keep or stop and take the mean of its end "
                f"({name_of(self.average)}) as well; ema can be chosen from"
            )
        if not isinstance(getattr(self.stop, "like", None), Train | None):
            raise SpecError("task train.stop: like must be a training, whose logged figures are the target")
        object.__setattr__(self, "defence", with_teachers(self.defence, self._teacher))
        try:
            for teacher in inputs(self.defence):
                _makes_a_network(teacher)
        except ValueError as error:
            raise SpecError(f"task train.defence: as a teacher {error}") from None

    def _teacher(self, defence: Any) -> "Train":
        """Return the training of the teacher that a defence needs: the same schedule to its end, at its temperature.

        It begins with the student's weights and order. It belongs to the description: a copy of another seed keeps it.
        """
        return replace(self, defence=Standard(temperature=defence.temperature), keep=None, stop=None)

    def title(self) -> str:
        """Name the work for people."""
        return f"train {network_name(self)}"

    def total_steps(self, images: int) -> int:
        """Return the number of steps for a training set of this size."""
        return self.steps or (self.epochs or 0) * max(1, images // min(self.batch_size, images))

    def run(self, io: Io) -> list[str]:
        """Train, from the last checkpoint where there is one."""
        train, validation = self._cut(io.data(self.data, "train")), io.data(self.data, "validation")
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
        told = self._card(io, done, train, min(WATCHED, len(validation)))
        write_json(io.scratch / CARD, told)
        write_atomic(io.scratch / README, markdown(told).encode())
        return [WEIGHTS, CONFIG, "history.json", CARD, README]

    def _card(self, io: Io, done: Run, train: Split, watched: int) -> dict[str, Any]:
        """Return the model card: how the network was made, and the figures of the one that is kept."""
        averaged = self.average is not None and self.average.needs_statistics
        row = next((row for row in done.history if row["step"] == done.kept), done.history[-1] if done.history else {})
        measured = logged(
            row,
            watched=watched,
            attack=None if self.watch is None else to_dict(self.watch),
            of="the network in training, before its weights were averaged" if averaged else None,
        )
        described: dict[str, Any] = to_dict(replace(self, init=None))
        schedule = {key: value for key, value in described.items() if key not in ("task", "model", "defence", "seed")}
        begun = {
            "init": None if self.init is None else network_name(self.init),
            "stopped": done.stopped,
            "kept": done.kept,
        }
        return card(
            model=described["model"],
            shape=train.shape,
            classes=train.classes,
            defence=described["defence"],
            data=io.data_used,
            schedule=schedule | begun,
            steps=done.step,
            seed=self.seed,
            measured=measured if row else (),
            seconds=done.seconds,
            passes={"forward": done.passes.forward, "backward": done.passes.backward},
            versions=versions(),
        )

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
            recipe=self._recipe(io),
            checkpoint=io.scratch / "checkpoint.safetensors",
            checkpoint_seconds=io.options.checkpoint_seconds,
            progress=io.progress,
        )

    def _recipe(self, io: Io, rehearsal: bool = False) -> Recipe:
        @functools.cache
        def network(task: Any) -> Classifier:
            return stand_in(io, task, self.data.load("train")) if rehearsal else io.network(task)

        return Recipe(
            augmentation=self.augmentation,
            average=self.average,
            precision=self.precision,
            accumulate=self.accumulate,
            watch=self.watch,
            stop=None if rehearsal else self._rule(io),
            keep=None if rehearsal else self.keep,
            unlabelled=self._without_labels(io, rehearsal),
            networks=network,
            channels_last=self.channels_last,
            compiled=self.compiled,
            log=None if rehearsal else self._log(io),
        )

    def _rule(self, io: Io) -> Stop | None:
        """Return the rule that stops training, with its target in figures where it is to be like another network."""
        rule = self.stop
        if not isinstance(rule, TargetAccuracy) or rule.like is None:
            return rule
        target = metric_value(rule.metric, kept_row(io.result(rule.like)))
        return replace(rule, like=None, accuracy=target)

    def _log(self, io: Io) -> Log | None:
        """Return what hears the figures while the network trains: TensorBoard, where it is asked for."""
        if io.options.tensorboard is None:
            return None
        return TensorBoard(io.options.tensorboard / f"{name_of(self.model)}-{digest(self)[:12]}").log

    def _without_labels(self, io: Io, rehearsal: bool) -> Split | None:
        """Return the images without labels; what they are is recorded beside the training part, not in its place."""
        if self.unlabelled is None:
            return None
        if rehearsal:
            return self.unlabelled.load("train")
        split = io.data(self.unlabelled, "train", "unlabelled")
        shape = self.data.load("train").shape
        if split.shape != shape:
            raise DataError(f"the images without labels, of {split.name}, are {split.shape}, those with labels {shape}")
        return split

    def _cut(self, split: Split) -> Split:
        """Return the first images of the training part, or all."""
        if self.images is None or self.images >= len(split):
            return split
        rows = torch.arange(self.images)
        return replace(split, pixels=split.pixels[rows], labels=split.labels[rows], masks=None, names=None)

    def rehearse(self, io: Io) -> Cost:
        """Try three steps and return what all of them may cost."""
        train, validation = self._cut(self.data.load("train")), self.data.load("validation")
        with global_seed(0):
            network = self.model.build(*_build_arguments(train)).to(io.device)
        total = self.total_steps(len(train))
        loop = Loop(
            network,
            self.defence,
            self.optimiser,
            train,
            validation,
            steps=max(6, total),
            batch_size=self.batch_size,
            seed=0,
            shuffle=self.shuffle,
            log_every=10**9,
            recipe=self._recipe(io, rehearsal=True),
        )
        began = loop.steps - 6  # of the end, where eps is full; the first warms up, a log follows the last
        loop.position.step = began
        counts: list[Cost] = []
        with Meter() as meter:
            loop.run(None, math.inf, lambda done, total, **numbers: counts.append(meter.cost()))
        loop.position.step, times = began, []
        loop.run(None, math.inf, lambda done, total, **numbers: times.append(time.monotonic()))
        return replace(counts[4].minus(counts[1]), seconds=times[4] - times[1]).times(total / 3)

    def _fresh(self, io: Io, train: Split) -> Classifier:
        with global_seed(derive(self.seed, "init")):
            network = self.model.build(*_build_arguments(train))
        if self.init is not None:
            start = io.network(self.init)
            if start.per_image != network.per_image:  # which the weights do not tell
                raise CheckpointError(
                    "one of the network to start from and the network to train standardises each image (model "
                    "per_image), the other does not"
                )
            load_weights(network, start.state_dict(), f"the network to start from ({name_of(self.init)})")
        return network.to(io.device)


def kept_row(result: Result) -> dict[str, float]:
    """Return the logged figures of the network that a training kept: the last ones, unless it kept an earlier one."""
    history: list[dict[str, float]] = result.json("history.json")
    kept = result.json(CARD)["training"]["schedule"]["kept"]
    return next((row for row in history if row["step"] == kept), history[-1])


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
