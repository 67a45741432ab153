"""The tasks that measure networks under attack and by their input gradients, and what measuring tasks share."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pellucid.attacks import with_eps
from pellucid.data.split import Split
from pellucid.errors import DataError, SpecError
from pellucid.evaluate import make_and_judge
from pellucid.metrics import gradient_norms, predict
from pellucid.models import Classifier
from pellucid.protocols import Attack, AttackField, DataField, Part
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Flag, Reals, Whole, name_of, register
from pellucid.store import write_json
from pellucid.tasks.attacking import joined_notes, summary, taught
from pellucid.tasks.cost import Cost, tried
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import write_columns, write_predictions, write_sizes
from pellucid.tasks.training import NetworkField, network_name, stand_in

TRIED = 16  # images, to say what all of them may cost


@register("task", "evaluate")
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Examples made for one network at every eps, and what it and the judges predict for each of them.

    The result is predictions.parquet, one row per image, judge and eps (judge 0 is the network itself);
    sizes.parquet, one row per image and eps: the perturbation's linf and l2 norm as found in the images, whether
    the prediction depended on the batch, and what the attack noted about the image; and summary.json: for each eps
    the passes of the attack and those of judging it, and warnings of the attack, if any. An attack that learns from
    images is taught on the first `fit_images` of the training part. Without an attack the only eps is 0: clean
    accuracy. Without epsilons the attack is run once as described; where it has an eps that is the grid, and within
    a grid the attack's own eps says nothing and is set to the largest. stop_when_fooled (white-box accuracy: any
    iterate counts, of a targeted attack any that reached its target; and whom a smaller eps fooled is not attacked
    again) is on without judges and off with them, when the attack runs all its steps, unless it is given.
    """

    network: NetworkField
    judges: tuple[NetworkField, ...] = ()
    data: DataField
    part: Part = "test"
    attack: AttackField | None = None
    epsilons: Reals | None = None
    stop_when_fooled: Flag | None = None
    images: Count | None = None
    chunk: Count = 1000
    seed: Whole = 0

    def check(self) -> None:
        """Say in one way what can be said in several, and refuse grids that make no sense."""
        attack, epsilons = self.attack, self.epsilons
        if epsilons is None:
            epsilons = (0.0,) if attack is None else (attack.eps,) if hasattr(attack, "eps") else None
        elif not epsilons or min(epsilons) < 0 or sorted(set(epsilons)) != list(epsilons):
            raise SpecError("task evaluate.epsilons must be numbers from 0 on, ascending, none twice")
        if attack is None and epsilons != (0.0,):
            raise SpecError("task evaluate needs an attack for any eps but 0")
        stop = self.stop_when_fooled
        object.__setattr__(self, "epsilons", epsilons)
        object.__setattr__(self, "attack", with_eps(attack, epsilons[-1]) if attack and epsilons else attack)
        object.__setattr__(self, "stop_when_fooled", not self.judges and attack is not None if stop is None else stop)

    def title(self) -> str:
        """Name the work for people."""
        what = f"{name_of(self.attack)} made for" if self.attack else "clean accuracy of"
        return f"evaluate {what} {network_name(self.network)}" + ("" if self.part == "test" else f", {self.part}")

    def run(self, io: Io) -> list[str]:
        """Attack chunk by chunk; finished chunks are not made again."""
        split = _with_labels(io.data(self.data, self.part))
        for task in (self.network, *self.judges):
            io.classes_fit(task, split)
        maker, judges = io.network(self.network), [io.network(judge) for judge in self.judges]
        n = count_images(split, self.images)
        attack = taught(io, maker, self.attack, self.epsilons, self.data, self.seed)
        found: list[dict[str, Tensor]] = []
        right = 0
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, maker, judges, split, attack)):
            found.append(part)
            right += int((part["predictions"][0, -1] == split.labels[rows].cpu()).sum())
            io.progress(int(rows[-1]) + 1, n, accuracy=right / (int(rows[-1]) + 1))
        predictions = torch.cat([part["predictions"] for part in found], 2)
        epsilons = self.epsilons or (math.nan,)
        write_predictions(io.scratch / "predictions.parquet", predictions, split.labels[:n].cpu(), epsilons)
        notes = joined_notes(found)
        sizes = {key: torch.cat([part[key] for part in found], 1) for key in ("linf", "l2", "unstable")}
        write_sizes(io.scratch / "sizes.parquet", sizes | notes, epsilons)
        passes = torch.stack([part["passes"] for part in found]).sum(0)
        write_json(io.scratch / "summary.json", summary(self.epsilons, passes, notes, io.ledger()))
        return ["predictions.parquet", "sizes.parquet", "summary.json"]

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost, were none of them fooled."""
        split = self.data.load(self.part)
        network = stand_in(io, self.network, split)
        lasting, judges = replace(self, stop_when_fooled=False), [network] * len(self.judges)
        work = partial(lasting._work, io, network, judges, answered(network, split), self.attack)
        return cost_of_images(work, count_images(split, self.images), self.chunk)

    def _work(
        self,
        io: Io,
        maker: Classifier,
        judges: list[Classifier],
        split: Split,
        attack: Attack | None,
        rows: Tensor,
    ) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        rng = Stream(derive(self.seed, "attack"), rows.to(io.device))
        return make_and_judge(maker, judges, x, y, attack, self.epsilons, rng, bool(self.stop_when_fooled))


@register("task", "input_gradients")
@dataclass(frozen=True, kw_only=True)
class InputGradients:
    """Norms of the input gradient of the cross-entropy at the true and at the next label, image by image.

    The result is norms.parquet: index, true, next. Source: Ross & Doshi-Velez 2018, Figure 4.
    """

    network: NetworkField
    data: DataField
    part: Part = "test"
    images: Count = 1000
    chunk: Count = 500

    def title(self) -> str:
        """Name the work for people."""
        return f"input gradients of {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Measure chunk by chunk."""
        split = _with_labels(io.data(self.data, self.part))
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), count_images(split, self.images)
        parts = []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, network, split)):
            parts.append(part["norms"])
            io.progress(int(rows[-1]) + 1, n)
        norms = torch.cat(parts, 1)
        columns = {"index": torch.arange(n), "true": norms[0], "next": norms[1]}
        write_columns(io.scratch / "norms.parquet", columns)
        return ["norms.parquet"]

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost."""
        split = self.data.load(self.part)
        network = stand_in(io, self.network, split)
        return cost_of_images(
            lambda rows: self._work(io, network, split, rows), count_images(split, self.images), self.chunk
        )

    def _work(self, io: Io, network: Classifier, split: Split, rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        return {"norms": torch.stack(gradient_norms(network, x, y))}


def in_chunks(
    io: Io, n: int, size: int, work: Callable[[Tensor], dict[str, Tensor]]
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield rows and results of `size` images at a time; finished chunks are read, not made again."""
    for rows in torch.split(torch.arange(n), size):
        yield rows, io.part(f"rows-{int(rows[0]):07d}", partial(work, rows))


def _with_labels(split: Split) -> Split:
    if not split.labelled:
        raise DataError(f"{split.name} has no labels to compare predictions with; pellucid explain needs none")
    return split


def count_images(split: Split, images: int | None) -> int:
    """Return how many images are measured: all, or the first so many."""
    return min(len(split), images or len(split))


def answered(network: Classifier, split: Split) -> Split:
    """Return the first images with the network's own answers as labels: an attack then has everything to do."""
    rows = torch.arange(min(TRIED, len(split)))
    device = next(network.parameters()).device
    few = split.at(rows, split.sha256, split.cut)
    return replace(few, labels=predict(network, few.images().to(device)).cpu())


def cost_of_images(work: Callable[[Tensor], object], images: int, chunk: int) -> Cost:
    """Return what `images` images may cost, a chunk at a time, from trying a few of them."""
    rows = torch.arange(min(TRIED, images))
    return tried(lambda: work(rows)).times(images / len(rows), launches=math.ceil(images / chunk))
