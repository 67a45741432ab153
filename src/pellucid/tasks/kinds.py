"""The tasks that experiments are made of: train, take somebody's checkpoint, evaluate, explain, measure gradients."""

import io as bytesio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.data.split import Split
from pellucid.defences import Standard
from pellucid.errors import CheckpointError, InputError, SpecError
from pellucid.evaluate import make_and_judge
from pellucid.explain import explain_pairs
from pellucid.guard import check_labels
from pellucid.metrics import gradient_norms
from pellucid.models import Classifier
from pellucid.models.checkpoint import CONFIG, WEIGHTS, load_weights, load_with_config, save_classifier
from pellucid.optimisers import Adam, Optimiser
from pellucid.protocols import AttackField, DataField, DefenceField, InterpreterField, ModelField
from pellucid.rng import Stream, derive, global_seed
from pellucid.spec import NOT_HASHED, Count, Flag, Reals, Whole, digest, fraction, member, name_of, register
from pellucid.store import file_digest, write_atomic, write_json, write_tensors
from pellucid.tasks.io import Io
from pellucid.train import fit

TaskField = Annotated[Any, member("task")]


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
        return f"train {name_of(self.model)}, {name_of(self.defence)}"

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
        network = self.model.build(*_build_arguments(train)).to(io.device)
        seconds = []
        for steps in (1, 4):
            began = time.monotonic()
            fit(network, self.defence, self.optimiser, train, validation, steps=steps, batch_size=self.batch_size, seed=0, log_every=10**9)
            seconds.append(time.monotonic() - began)
        return max(0.0, seconds[1] - seconds[0]) / 3 * self.total_steps(len(train))

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
            raise CheckpointError(f"there is no checkpoint at {path}; pellucid train prints the folder of the one it makes")
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
        return f"evaluate {name_of(self.attack) if self.attack else 'clean accuracy'}"

    def run(self, io: Io) -> list[str]:
        """Attack chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        for task in (self.network, *self.judges):
            io.classes_fit(task, split)
        maker, judges = io.network(self.network), [io.network(judge) for judge in self.judges]
        n = min(len(split), self.images or len(split))
        found: list[dict[str, Tensor]] = []
        right = 0
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            found.append(io.part(f"rows-{start:07d}", self._work(io, maker, judges, split, rows)))
            right += int((found[-1]["predictions"][0, -1] == split.labels[rows].cpu()).sum())
            io.progress(int(rows[-1]) + 1, n, accuracy=right / (int(rows[-1]) + 1))
        predictions = torch.cat([part["predictions"] for part in found], 2)
        write_table(io.scratch / "predictions.parquet", self._long(predictions, split.labels[:n]))
        sizes = {key: torch.cat([part[key] for part in found], 1) for key in ("linf", "l2", "unstable")}
        write_table(io.scratch / "sizes.parquet", self._long_sizes(sizes))
        return ["predictions.parquet", "sizes.parquet"]

    def rehearse(self, io: Io) -> float:
        """Time a few images through a fresh network and return the seconds that all of them may take."""
        split = self.data.load(self.part)
        model = getattr(self.network, "model", None)
        network = model.build(*_build_arguments(split)).to(io.device) if model else io.network(self.network)
        n = min(len(split), self.images or len(split))
        rows = torch.arange(min(64, n))
        began = time.monotonic()
        self._work(io, network, [network] * len(self.judges), split, rows)()
        return (time.monotonic() - began) / len(rows) * n

    def _work(
        self, io: Io, maker: Classifier, judges: list[Classifier], split: Split, rows: Tensor
    ) -> Callable[[], dict[str, Tensor]]:
        def work() -> dict[str, Tensor]:
            x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
            rng = Stream(derive(self.seed, "attack"), rows.to(io.device))
            return make_and_judge(maker, judges, x, y, self.attack, self.epsilons, rng)

        return work

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
            return f"attack by {name_of(self.attack)}" if self.attack else "predict"
        return f"explain by {', '.join(name_of(i) for i in self.interpreters)}"

    def run(self, io: Io) -> list[str]:
        """Attack and map chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), min(len(split), self.images)
        found = []
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
            rng = Stream(derive(self.seed, "explain"), rows.to(io.device))

            def work(x: Tensor = x, y: Tensor = y, rng: Stream = rng) -> dict[str, Tensor]:
                return explain_pairs(network, x, y, self.attack, self.interpreters, rng) | {"labels": y}

            found.append(io.part(f"rows-{start:07d}", work))
            io.progress(int(rows[-1]) + 1, n)
        write_tensors(io.scratch / "maps.safetensors", {k: torch.cat([part[k] for part in found]) for k in found[0]})
        return ["maps.safetensors"]


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
        return "measure input gradients"

    def run(self, io: Io) -> list[str]:
        """Measure chunk by chunk."""
        split = io.data(self.data, self.part)
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), min(len(split), self.images)
        parts = []
        for start in range(0, n, self.chunk):
            rows = torch.arange(start, min(start + self.chunk, n))
            x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)

            def work(x: Tensor = x, y: Tensor = y) -> dict[str, Tensor]:
                return {"norms": torch.stack(gradient_norms(network, x, y))}

            parts.append(io.part(f"rows-{start:07d}", work)["norms"])
            io.progress(int(rows[-1]) + 1, n)
        norms = torch.cat(parts, 1)
        columns = {"index": torch.arange(n).numpy(), "true": norms[0].numpy(), "next": norms[1].numpy()}
        write_table(io.scratch / "norms.parquet", pa.table(columns))
        return ["norms.parquet"]
