"""The tasks that ask what a network goes by: transformed images, conflicting cues, and maps of transformed images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from pydantic import BeforeValidator
from torch import Tensor

from pellucid.data.split import Split
from pellucid.errors import DataError, SpecError
from pellucid.guard import batches, check_logits, frozen
from pellucid.interpreters import Gradient, SmoothGrad
from pellucid.interpreters.heatmap import reduce_channels
from pellucid.maths.losses import log_probability
from pellucid.metrics import contour_correlation, saliency_distance, sparsity, spearman
from pellucid.models import Classifier
from pellucid.protocols import DataField, InterpreterField, Part, Transform, TransformField
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Whole, name_of, read_sequence, register
from pellucid.store import write_json, write_tensors
from pellucid.tasks.cost import Cost
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import cost_of_images, count_images, in_chunks
from pellucid.tasks.parquet import write_columns
from pellucid.tasks.training import NetworkField, network_name, stand_in

TransformsField = Annotated[tuple[TransformField, ...], BeforeValidator(read_sequence)]
_BATCH = 500
_TOLD = "transforms.json"


@runtime_checkable
class Styling(Protocol):
    """A transformation that can also take the style of each image from another image."""

    def with_styles(self, images: Tensor, styles: Tensor) -> Tensor:
        """Return images (N, C, H, W), each in the style of the image (N, C, h, w) in its place."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Judging:
    """What these tasks share: a network that looks at the labelled images of a part, chunk by chunk.

    Beside their figures they write transforms.json: of each transformation its name and, where it stylises, which
    stylizer was used.
    """

    network: NetworkField
    data: DataField
    part: Part = "test"
    images: Count | None = None
    chunk: Count = 1000
    seed: Whole = 0

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost."""
        split = self.data.load(self.part)
        work = partial(self._work, io, stand_in(io, self.network, split), split, self._opened(io))
        return cost_of_images(work, count_images(split, self.images), self.chunk)

    def _opened(self, io: Io) -> list[Any]:
        """Return the transformations, ready for use."""
        raise NotImplementedError

    def _work(self, io: Io, network: Classifier, split: Split, ready: list[Any], rows: Tensor) -> dict[str, Tensor]:
        """Return figures (T, n, ...) of some images, with an axis of its own for the transformations."""
        raise NotImplementedError

    def _measured(self, io: Io) -> tuple[Split, dict[str, Tensor]]:
        """Return the part, and the figures (T, N, ...) of all images; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        if not split.labelled:
            raise DataError(f"{split.name} has no labels: what a network goes by is measured on labelled images")
        io.classes_fit(self.network, split)
        ready, n, found = self._opened(io), count_images(split, self.images), []
        work = partial(self._work, io, io.network(self.network), split, ready)
        for rows, part in in_chunks(io, n, self.chunk, work):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        told = [{"transform": name_of(one), "stylizer": getattr(one, "stylizer_name", None)} for one in ready]
        write_json(io.scratch / _TOLD, told)
        return split, {name: torch.cat([part[name] for part in found], 1) for name in found[0]}


@register("task", "transformed")
@dataclass(frozen=True, kw_only=True)
class Transformed(_Judging):
    """What a network predicts for the images of a part, untouched and after each of several transformations.

    The result is transformed.parquet, one row per transformation and image: index, label, transform (0 the untouched
    image, i the i-th of `transforms`), predicted, and probability (the softmax of the true class).
    Each transformation starts from the untouched image. Its random numbers depend on the seed, its place among
    `transforms` and the image's place in the part. Raises DataError for images without labels, and what a
    transformation refuses. Source: Zhang & Zhu 2019, sections 3.2 and 4.2, Figure 6 (probabilities).
    """

    transforms: TransformsField

    def title(self) -> str:
        """Name the work for people."""
        return f"{_counted(self.transforms)} for {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Transform and predict."""
        write_columns(io.scratch / "transformed.parquet", _table(*self._measured(io)))
        return ["transformed.parquet", _TOLD]

    def _opened(self, io: Io) -> list[Any]:
        return [opened(transform, io) for transform in self.transforms]

    def _work(self, io: Io, network: Classifier, split: Split, ready: list[Any], rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        found = [judged(network, images, y) for images in versions(ready, x, rows.to(io.device), self.seed)]
        return {"predicted": torch.stack([p for p, _ in found]), "probability": torch.stack([q for _, q in found])}


@register("task", "cue_conflict")
@dataclass(frozen=True, kw_only=True)
class CueConflict(_Judging):
    """What a network predicts for images of one class in the style of an image of another class.

    The result is conflict.parquet, one row per image: index, shape (its class), style (the index of the image whose
    style it has), texture (that image's class, never the same), clean (predicted for the untouched image) and
    predicted (for the stylised one). `metrics.shape_bias` reads it. The style is that of any image of the whole part
    with another class, each as likely; it depends on the seed and the image's place in the part alone. The folder of
    styles that `stylize` names is not used. Raises SpecError for a transformation that cannot take styles from images,
    and DataError for images without labels or of one class.
    Source: Geirhos et al. 2019, section 2 (cue conflicts). Deviations: they stylise by iterative optimisation (Gatys et
    al. 2016), choose images by hand, and judge 16 classes to which those of ImageNet are mapped.
    """

    stylize: TransformField

    def check(self) -> None:
        """Refuse transformations that have no style."""
        if not isinstance(self.stylize, Styling):
            known = name_of(self.stylize)
            raise SpecError(f"task cue_conflict.stylize must take styles from images (stylize does); {known} has none")

    def title(self) -> str:
        """Name the work for people."""
        return f"cue conflicts for {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Stylise and predict."""
        _, found = self._measured(io)
        columns = {name: values[0] for name, values in found.items()}
        write_columns(io.scratch / "conflict.parquet", {"index": torch.arange(len(columns["shape"]))} | columns)
        return ["conflict.parquet", _TOLD]

    def _opened(self, io: Io) -> list[Any]:
        return [opened(self.stylize, io)]

    def _work(self, io: Io, network: Classifier, split: Split, ready: list[Any], rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        styles = others(split, rows, derive(self.seed, "style"))
        stylised = ready[0].with_styles(x, split.images(styles).to(io.device))
        found = {
            "shape": y,
            "style": styles,
            "texture": split.labels[styles],
            "clean": judged(network, x, y)[0],
            "predicted": judged(network, stylised, y)[0],
        }
        return {name: values[None] for name, values in found.items()}


@register("task", "sensitivity")
@dataclass(frozen=True, kw_only=True)
class Sensitivity(_Judging):
    """Maps of the true class on images, untouched and transformed: how sparse, how much on contours, how alike.

    The result is sensitivity.parquet, one row per transformation and image: index, label, transform (0 the untouched
    image), predicted, probability (of the true class), and of the map's magnitudes, summed over channels, sparsity
    (Gini), contours (rank correlation with the edges of that transformed image), similarity and distance (rank
    correlation with, and mean distance from, the map on the untouched image). Both correlations are NaN where a map is
    constant, sparsity where it is zero.
    maps.safetensors holds the first `shown` images: images (T + 1, shown, C, H, W), maps of magnitudes
    (T + 1, shown, h, w), probabilities (T + 1, shown) and labels (shown). Transformations draw what they draw in
    Transformed; what an interpreter draws is the same for an image in all its versions. Raises DataError for images
    without labels, and what a transformation or the interpreter refuses.
    Source: Zhang & Zhu 2019, equations 2-3 and Figures 2, 8, 9 and 10; the measures are ours, but for the distance
    (their section 5, see `metrics.saliency_distance`).
    """

    transforms: TransformsField
    interpreter: InterpreterField = field(default_factory=lambda: SmoothGrad(inner=Gradient(score="log_probability")))
    images: Count | None = 100
    shown: Whole = 6
    chunk: Count = 50

    def title(self) -> str:
        """Name the work for people."""
        return f"maps under {_counted(self.transforms)} of {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Map and measure."""
        split, found = self._measured(io)
        shown = {name: found.pop(name) for name in ("images", "maps")}
        n = shown["images"].shape[1]
        shown |= {"probabilities": found["probability"][:, :n], "labels": split.labels[:n]}
        write_columns(io.scratch / "sensitivity.parquet", _table(split, found))
        write_tensors(io.scratch / "maps.safetensors", shown)
        return ["sensitivity.parquet", "maps.safetensors", _TOLD]

    def _opened(self, io: Io) -> list[Any]:
        return [opened(transform, io) for transform in self.transforms]

    def _work(self, io: Io, network: Classifier, split: Split, ready: list[Any], rows: Tensor) -> dict[str, Tensor]:
        x, y, places = split.images(rows).to(io.device), split.labels[rows].to(io.device), rows.to(io.device)
        rng, shown = Stream(derive(self.seed, "maps"), places), int((rows < self.shown).sum())
        untouched, found = None, []
        for images in versions(ready, x, places, self.seed):
            with frozen(network):  # the inner door: transformed images may leave [0, 1]
                maps = reduce_channels(self.interpreter.maps(network, images, y, rng=rng), "abs_sum").abs()
            untouched = maps if untouched is None else untouched
            predicted, probability = judged(network, images, y)
            known = {"predicted": predicted, "probability": probability, "images": images[:shown], "maps": maps[:shown]}
            measures = {
                "sparsity": sparsity(maps),
                "contours": contour_correlation(maps, images),
                "similarity": spearman(untouched, maps),
                "distance": saliency_distance(untouched, maps),
            }
            found.append(known | measures)
        return {name: torch.stack([version[name] for version in found]) for name in found[0]}


def versions(transforms: Sequence[Transform], x: Tensor, rows: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield images untouched, then after each transformation; what is random depends on an image's row in its part."""
    yield x
    for number, transform in enumerate(transforms, 1):
        yield transform(x, rng=Stream(derive(seed, "transform", number), rows))


def opened(transform: Any, io: Io) -> Any:
    """Return a transformation ready for use: what a task was to make for it is taken from that task's result."""
    task = getattr(transform, "fitted", None)
    return transform if task is None else transform.opened(io.result(task).folder)


def others(split: Split, rows: Tensor, seed: int) -> Tensor:
    """Return for each row the row of an image of another class, each as likely, int64 (n,); DataError for one class."""
    labels = split.labels.cpu()
    order = labels.argsort(stable=True)
    first, last = (torch.searchsorted(labels[order], labels[rows], right=right) for right in (False, True))
    number = len(labels) - (last - first)
    if bool((number == 0).any()):
        raise DataError(f"all images of {split.name} are of one class: conflicting cues need a second")
    share = Stream(seed, rows).uniform(torch.empty(len(rows), dtype=torch.float64), ())
    drawn = (share * number).long()
    return order[torch.where(drawn < first, drawn, drawn + last - first)]


def judged(network: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a network predicts (N,) and the softmax of the class y (N,), of images in [0, 1] or beyond."""
    with frozen(network), torch.no_grad():
        logits = torch.cat([check_logits(network(part), part) for part in batches(x, _BATCH)])
    return logits.argmax(1), log_probability(logits, y).exp()


def _counted(transforms: Sequence[Transform]) -> str:
    return f"{len(transforms)} transformation{'' if len(transforms) == 1 else 's'}"


def _table(split: Split, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return figures (T + 1, N) as columns, with the image, its label and the transformation of each row."""
    times, n = next(iter(found.values())).shape
    known = {
        "index": torch.arange(n).repeat(times),
        "label": split.labels[:n].cpu().repeat(times),
        "transform": torch.arange(times).repeat_interleave(n),
    }
    return known | {name: values.flatten() for name, values in found.items()}
