"""The task that scores maps by where the evidence really is: on the object, whose mask is known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import BeforeValidator
from torch import Tensor

from pellucid.data.split import Split
from pellucid.errors import DataError
from pellucid.guard import frozen
from pellucid.metrics import average_precision, chance, mass_on_object, pointing_game
from pellucid.models import Classifier
from pellucid.protocols import DataField, Interpreter, InterpreterField, Part
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Whole, read_sequence, register
from pellucid.tasks.cost import Cost
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import cost_of_images, count_images, in_chunks
from pellucid.tasks.parquet import write_columns
from pellucid.tasks.training import NetworkField, network_name, stand_in

MEASURES = ("mass", "pointing", "precision")
NO_NETWORK = -1  # the number of the map that asks no network: the image itself


@register("task", "evidence")
@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How much of each interpreter's map of the true class lies on the object, image by image.

    The result is evidence.parquet: index, label, prediction, interpreter (its number; -1 is a map that asks no
    network, the distance of each pixel from the image's mean brightness), mass (share on the object), pointing (is
    the largest value on it), precision (area under the precision-recall curve) and chance (share of pixels on it).
    Magnitudes of signed maps count; maps without mass have none (NaN), and point nowhere.
    Needs data with masks, such as glyphs; raises DataError for others.
    """

    network: NetworkField
    data: DataField
    part: Part = "test"
    interpreters: Annotated[tuple[InterpreterField, ...], BeforeValidator(read_sequence)]
    images: Count = 500
    chunk: Count = 100
    seed: Whole = 0

    def title(self) -> str:
        """Name the work for people."""
        return f"evidence of {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Map and score chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), count_images(split, self.images)
        found = []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, network, split)):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        write_columns(
            io.scratch / "evidence.parquet", {key: torch.cat([part[key] for part in found]) for key in found[0]}
        )
        return ["evidence.parquet"]

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost."""
        split = self.data.load(self.part)
        network = stand_in(io, self.network, split)
        return cost_of_images(partial(self._work, io, network, split), count_images(split, self.images), self.chunk)

    def _work(self, io: Io, network: Classifier, split: Split, rows: Tensor) -> dict[str, Tensor]:
        if split.masks is None:
            raise DataError(
                f"{split.name} does not say where its objects are: evidence needs data with masks, as glyphs"
            )
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        mask, rng = split.masks[rows].to(io.device), Stream(derive(self.seed, "evidence"), rows.to(io.device))
        with frozen(network), torch.no_grad():
            predictions = network(x).argmax(1)
        maps: list[tuple[int, Callable[[], Tensor]]] = [(NO_NETWORK, partial(contrast, x))]
        maps += [
            (place, partial(_mapped, method, network, x, y, rng)) for place, method in enumerate(self.interpreters)
        ]
        parts = []
        for number, made in maps:
            known = {"index": rows.to(io.device), "label": y, "prediction": predictions}
            known |= {"interpreter": torch.full_like(y, number), "chance": chance(mask)}
            parts.append(known | measured(made(), mask))
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def measured(maps: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the measures of maps against the mask, float64 (N,) each."""
    return {
        "mass": mass_on_object(maps, mask),
        "pointing": pointing_game(maps, mask).double(),
        "precision": average_precision(maps, mask),
    }


def contrast(x: Tensor) -> Tensor:
    """Return a map that asks no network: how far each pixel is from the image's mean, (N, C, H, W) -> (N, H, W)."""
    return (x - x.mean((2, 3), keepdim=True)).abs().sum(1)


def _mapped(method: Interpreter, network: Classifier, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
    return method(network, x, y, rng=rng)
