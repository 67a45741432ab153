"""The tasks that experiments are made of: train, take somebody's checkpoint, evaluate, explain, measure gradients."""

import io as bytesio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.data.split import Split
from pellucid.defences import Standard
from pellucid.errors import CheckpointError, SpecError
from pellucid.evaluate import make_and_judge
from pellucid.explain import explain_pairs
from pellucid.metrics import gradient_norms
from pellucid.models import Classifier
from pellucid.models.checkpoint import CONFIG, WEIGHTS, load_weights, load_with_config, save_classifier
from pellucid.optimisers import Adam, Optimiser
from pellucid.protocols import AttackField, DataField, DefenceField, InterpreterField, ModelField
from pellucid.rng import Stream, derive, global_seed
from pellucid.spec import NOT_HASHED, Count, Flag, Reals, Whole, brief, member, name_of, register
from pellucid.store import file_digest, write_atomic, write_json, write_tensors
from pellucid.tasks.io import Io
from pellucid.train import fit

TaskField = Annotated[Any, member("task")]


def network_name(task: Any) -> str:
    """Name the network that a task makes, for people."""
    if isinstance(task, Train):
        return f"{brief(task.model)}, {brief(task.defence)}"
    return Path(task.path).name if isinstance(task, Checkpoint) else name_of(task)


@register("task", "train")
@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one network; the result is a folder that `load_classifier` reads, with its training history.

    Exactly one of `steps` and `epochs` is given. `init` starts from a finished network (another Train, or a
    Checkpoint) with a fresh optimiser: post-processing. `train_images` cuts the training part to its first images.
    """

    data: DataField
    model: ModelField
    defence: DefenceField = field(default_factory=Standard)
    optimiser: Annotated[Optimiser, member("optimiser")] = field(default_factory=Adam)
    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 256
    shuffle: Flag = True
    log_every: Count = 100
    init: TaskField | None = None
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
        done = fit(
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
        save_classifier(io.scratch, network, self.model, train.shape, train.classes)
        write_json(io.scratch / "history.json", done.history)
        io.spend("train", done.seconds, done.passes)
        return [WEIGHTS, CONFIG, "history.json"]

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

    sha256: str
    path: Annotated[str, "where it was read"] = field(default="", metadata=dict(NOT_HASHED))

    @classmethod
    def of(cls, path: str | Path) -> "Checkpoint":
        """Describe the network in a folder; raise CheckpointError if it cannot be read."""
        if not Path(path).exists():
            raise CheckpointError(
                f"there is no checkpoint at {path}; pellucid train prints the folder of the one it makes"
            )
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        load_with_config(Path(path))
        return cls(sha256=file_digest(folder / WEIGHTS) + file_digest(folder / CONFIG), path=str(folder))

    def title(self) -> str:
        """Name the work for people."""
        return f"read {Path(self.path).name}"

    def run(self, io: Io) -> list[str]:
        """Copy the network into the store."""
        folder = Path(self.path)
        if Checkpoint.of(folder).sha256 != self.sha256:
            raise CheckpointError(f"{folder} is not the network it was when the task was described")
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(folder / name, io.scratch / name)
        return [WEIGHTS, CONFIG]


@register("task", "evaluate")
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Examples made for one network at every eps, and what it and the judges predict for each of them.

    The result is predictions.parquet, one row per image, judge and eps (judge 0 is the network itself), and
    sizes.parquet, one row per image and eps: the perturbation's linf and l2 norm as found in the images, and
    whether the prediction depended on the batch. Without an attack the only eps is 0: clean accuracy.
    With judges the attack runs all its steps; without, images leave once they are fooled.
    """

    network: TaskField
    judges: tuple[TaskField, ...] = ()
    data: DataField
    part: str = "test"
    attack: AttackField | None = None
    epsilons: Reals = (0.0,)
    images: Count | None = None
    chunk: Count = 1000
    seed: Whole = 0

    def check(self) -> None:
        """Refuse eps without an attack and attacks without eps."""
        if not self.epsilons or min(self.epsilons) < 0 or sorted(set(self.epsilons)) != list(self.epsilons):
            raise SpecError("task evaluate.epsilons must be numbers from 0 on, ascending, none twice")
        if self.attack is None and self.epsilons != (0.0,):
            raise SpecError("task evaluate needs an attack for any eps but 0")
        if self.attack is not None and not hasattr(self.attack, "eps"):
            raise SpecError(f"attack {name_of(self.attack)} has no eps to vary")

    def title(self) -> str:
        """Name the work for people."""
        what = f"{name_of(self.attack)} made for" if self.attack else "clean accuracy of"
        return f"evaluate {what} {network_name(self.network)}" + ("" if self.part == "test" else f", {self.part}")

    def run(self, io: Io) -> list[str]:
        """Attack chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        for task in (self.network, *self.judges):
            io.classes_fit(task, split)
        maker, judges = io.network(self.network), [io.network(judge) for judge in self.judges]
        n = _count(split, self.images)
        found: list[dict[str, Tensor]] = []
        right = 0
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            found.append(io.part(f"rows-{start:07d}", partial(self._work, io, maker, judges, split, rows)))
            right += int((found[-1]["predictions"][0, -1] == split.labels[rows].cpu()).sum())
            io.progress(int(rows[-1]) + 1, n, accuracy=right / (int(rows[-1]) + 1))
        predictions = torch.cat([part["predictions"] for part in found], 2)
        write_table(io.scratch / "predictions.parquet", self._long(predictions, split.labels[:n]))
        sizes = {key: torch.cat([part[key] for part in found], 1) for key in ("linf", "l2", "unstable")}
        write_table(io.scratch / "sizes.parquet", self._long_sizes(sizes))
        return ["predictions.parquet", "sizes.parquet"]

    def rehearse(self, io: Io) -> float:
        """Time a few images and return the seconds that all of them may take."""
        split = self.data.load(self.part)
        network = _stand_in(io, self.network, split)
        judges = [network] * len(self.judges)
        return _time_images(lambda rows: self._work(io, network, judges, split, rows), _count(split, self.images))

    def _work(
        self, io: Io, maker: Classifier, judges: list[Classifier], split: Split, rows: Tensor
    ) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        rng = Stream(derive(self.seed, "attack"), rows.to(io.device))
        return make_and_judge(maker, judges, x, y, self.attack, self.epsilons, rng)

    def _long(self, predictions: Tensor, labels: Tensor) -> pa.Table:
        judges, epsilons, n = predictions.shape
        index = torch.arange(n)
        return pa.table(
            {
                "index": index.repeat(judges * epsilons).numpy(),
                "label": labels.cpu().to(torch.int16).repeat(judges * epsilons).numpy(),
                "judge": torch.arange(judges).repeat_interleave(epsilons * n).to(torch.int16).numpy(),
                "epsilon": torch.tensor(self.epsilons, dtype=torch.float64).repeat_interleave(n).repeat(judges).numpy(),
                "prediction": predictions.flatten().numpy(),
            }
        )

    def _long_sizes(self, sizes: dict[str, Tensor]) -> pa.Table:
        epsilons, n = sizes["linf"].shape
        columns = {
            "index": torch.arange(n).repeat(epsilons).numpy(),
            "epsilon": torch.tensor(self.epsilons, dtype=torch.float64).repeat_interleave(n).numpy(),
        }
        return pa.table(columns | {key: value.flatten().numpy() for key, value in sizes.items()})


def _count(split: Split, images: int | None) -> int:
    return min(len(split), images or len(split))


def _stand_in(io: Io, task: Any, split: Split) -> Classifier:
    """Return a network as large as the one a task will make: enough to time, before it is trained."""
    if not isinstance(task, Train):
        return io.network(task)
    with global_seed(0):
        return task.model.build(*_build_arguments(split)).to(io.device).eval()


def _time_images(work: Callable[[Tensor], object], images: int) -> float:
    """Return the seconds that `images` images may take, from timing 16 of them after a warm-up."""
    rows = torch.arange(min(16, images))
    work(rows)
    began = time.monotonic()
    work(rows)
    return (time.monotonic() - began) / len(rows) * images


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file that is either complete or not there."""
    buffer = bytesio.BytesIO()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue())


def read_predictions(path: Path) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Read predictions.parquet: predictions (1 + J, E, N), labels (N,), epsilons."""
    columns = {name: torch.from_numpy(values.to_numpy().copy()) for name, values in zip(*_columns(pq.read_table(path)))}
    judges = int(columns["judge"].max()) + 1
    n = int(columns["index"].max()) + 1
    predictions = columns["prediction"].view(judges, -1, n)
    epsilons = tuple(float(e) for e in columns["epsilon"].view(judges, -1, n)[0, :, 0])
    return predictions.long(), columns["label"][:n].long(), epsilons


def _columns(table: pa.Table) -> tuple[list[str], list[Any]]:
    return table.column_names, [column.combine_chunks() for column in table.columns]


@register("task", "explain")
@dataclass(frozen=True, kw_only=True)
class Explain:
    """Maps of the true class on clean images and on their adversarial examples, with Kendall's tau between them.

    The result is maps.safetensors (see `pellucid.explain.explain_pairs`) with the labels.
    """

    network: TaskField
    data: DataField
    part: str = "test"
    attack: AttackField | None = None
    interpreters: tuple[InterpreterField, ...]
    images: Count = 100
    chunk: Count = 200
    seed: Whole = 0

    def title(self) -> str:
        """Name the work for people."""
        if not self.interpreters:
            return f"attack {network_name(self.network)}" if self.attack else "predict"
        return f"explain {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Attack and map chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), _count(split, self.images)
        found = []
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            found.append(io.part(f"rows-{start:07d}", partial(self._work, io, network, split, rows)))
            io.progress(int(rows[-1]) + 1, n)
        write_tensors(io.scratch / "maps.safetensors", {k: torch.cat([part[k] for part in found]) for k in found[0]})
        return ["maps.safetensors"]

    def rehearse(self, io: Io) -> float:
        """Time a few images and return the seconds that all of them may take."""
        split = self.data.load(self.part)
        network = _stand_in(io, self.network, split)
        return _time_images(lambda rows: self._work(io, network, split, rows), _count(split, self.images))

    def _work(self, io: Io, network: Classifier, split: Split, rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        rng = Stream(derive(self.seed, "explain"), rows.to(io.device))
        return explain_pairs(network, x, y, self.attack, self.interpreters, rng) | {"labels": y}


@register("task", "input_gradients")
@dataclass(frozen=True, kw_only=True)
class InputGradients:
    """Norms of the input gradient of the cross-entropy at the true and at the next label, image by image.

    The result is norms.parquet: index, true, next. Source: Ross & Doshi-Velez 2018, Figure 4.
    """

    network: TaskField
    data: DataField
    part: str = "test"
    images: Count = 1000
    chunk: Count = 500

    def title(self) -> str:
        """Name the work for people."""
        return f"input gradients of {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Measure chunk by chunk."""
        split = io.data(self.data, self.part)
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), _count(split, self.images)
        parts = []
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            parts.append(io.part(f"rows-{start:07d}", partial(self._work, io, network, split, rows))["norms"])
            io.progress(int(rows[-1]) + 1, n)
        norms = torch.cat(parts, 1)
        columns = {"index": torch.arange(n).numpy(), "true": norms[0].numpy(), "next": norms[1].numpy()}
        write_table(io.scratch / "norms.parquet", pa.table(columns))
        return ["norms.parquet"]

    def rehearse(self, io: Io) -> float:
        """Time a few images and return the seconds that all of them may take."""
        split = self.data.load(self.part)
        network = _stand_in(io, self.network, split)
        return _time_images(lambda rows: self._work(io, network, split, rows), _count(split, self.images))

    def _work(self, io: Io, network: Classifier, split: Split, rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        return {"norms": torch.stack(gradient_norms(network, x, y))}
