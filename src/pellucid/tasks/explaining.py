"""The task that explains images: maps for several classes, before and after an attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator
from torch import Tensor

from pellucid.attacks import is_learner
from pellucid.data.split import Split
from pellucid.errors import DataError, SpecError
from pellucid.explain import Explanation, deciding, explain_pairs, joined, logits_of, refusal, targets_of, titles
from pellucid.models import Classifier
from pellucid.protocols import Attack, AttackField, DataField, InterpreterField, Part
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Whole, name_of, read_sequence, register
from pellucid.store import Result, read_json, write_json, write_tensors
from pellucid.tasks.attacking import taught
from pellucid.tasks.cost import Cost
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import cost_of_images, count_images, in_chunks
from pellucid.tasks.training import NetworkField, network_name, stand_in

MAPS, EXPLAINED = "maps.safetensors", "explained.json"
_HEARD = "decisions.json"


def _words(value: Any) -> Any:
    """Read "predicted,3" as words; class numbers are words too."""
    value = read_sequence(value)
    return tuple(str(part) if type(part) is int else part for part in value) if isinstance(value, tuple) else value


@register("task", "explain")
@dataclass(frozen=True, kw_only=True)
class Explain:
    """Maps of clean images and, with an attack, of their adversarial examples with Kendall's tau between them.

    `classes` says for which classes of every image, in the words of `pellucid.explain.targets_of`: true, predicted,
    runner_up, least_likely (of the clean image), a name or a number; images without labels have no true class. The
    attack moves images away from the true class, without labels from the predicted one.
    The result is maps.safetensors (see `pellucid.explain.explain_pairs`) with the labels, if there are any, and
    explained.json: the classes asked for, the names of all classes, decisions that interpreters reported, and the
    images' file names where they have any.
    """

    network: NetworkField
    data: DataField
    part: Part = "test"
    attack: AttackField | None = None
    interpreters: Annotated[tuple[InterpreterField, ...], BeforeValidator(read_sequence)]
    classes: Annotated[tuple[str, ...], BeforeValidator(_words)] = ("true",)
    images: Count = 100
    chunk: Count = 200
    seed: Whole = 0

    def check(self) -> None:
        """Refuse to explain no class, and anything twice."""
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise SpecError("task explain.classes must name at least one class, none twice")
        titles(self.interpreters)

    def title(self) -> str:
        """Name the work for people."""
        if not self.interpreters:
            return f"{name_of(self.attack)} on {network_name(self.network)}" if self.attack else "predict"
        return f"explain {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Attack and map chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        names = io.classes_fit(self.network, split)
        network, n = io.network(self.network), count_images(split, self.images)
        self._try(io, network, split, names)
        attack = taught(io, network, self.attack, None, self.data, self.seed)
        found = []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, network, split, attack, names)):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        write_tensors(io.scratch / MAPS, joined(found))
        decisions = [*remarks(split, names, n), *self._decisions(io)]
        said = {"classes": list(self.classes), "names": list(names), "decisions": decisions}
        write_json(io.scratch / EXPLAINED, said | {"images": None if split.names is None else list(split.names[:n])})
        return [MAPS, EXPLAINED]

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost."""
        split = self.data.load(self.part)
        network = stand_in(io, self.network, split)
        work = partial(self._maps, io, network, split, self.attack, split.classes)
        return cost_of_images(work, count_images(split, self.images), self.chunk)

    def _try(self, io: Io, network: Classifier, split: Split, names: Sequence[str]) -> None:
        """Refuse, before anything long, what cannot be explained: one image is tried."""
        if not split.labelled:
            if "true" in self.classes:
                raise DataError(f"{split.name} has no labels, so no true class: explain the class predicted instead")
            if is_learner(self.attack):
                raise DataError(f"{name_of(self.attack)} learns from labelled images, and {split.name} has no labels")
        x = split.images(slice(1)).to(io.device)
        targets_of(logits_of(network, x), self.classes, split.labels[:1].to(io.device), names)
        for interpreter in self.interpreters:
            if (error := refusal(network, x, interpreter)) is not None:
                raise error

    def _work(
        self, io: Io, network: Classifier, split: Split, attack: Attack | None, names: Sequence[str], rows: Tensor
    ) -> dict[str, Tensor]:
        with deciding() as heard:
            found = self._maps(io, network, split, attack, names, rows)
        known = self._decisions(io)  # kept as they are heard: another process may end the work
        write_json(io.scratch / _HEARD, {"decisions": [*known, *(said for said in heard if said not in known)]})
        return found

    def _maps(
        self, io: Io, network: Classifier, split: Split, attack: Attack | None, names: Sequence[str], rows: Tensor
    ) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device) if split.labelled else None
        rng = Stream(derive(self.seed, "explain"), rows.to(io.device))
        targets = targets_of(logits_of(network, x), self.classes, y, names)
        found = explain_pairs(network, x, targets, attack, self.interpreters, rng, y)
        return found if y is None else found | {"labels": y}

    def _decisions(self, io: Io) -> list[str]:
        path = io.scratch / _HEARD
        found: list[str] = read_json(path)["decisions"] if path.is_file() else []
        return found


def remarks(split: Split, names: Sequence[str], n: int) -> list[str]:
    """Return what a reader must know of the images: whose class names are shown, and how many were left out."""
    said = []
    if split.labelled and tuple(names) != split.classes:
        ours, theirs = (", ".join(words[:3]) for words in (names, split.classes))
        said.append(f"classes are named as the network's ({ours}, ...), not as those of {split.name} ({theirs}, ...)")
    if not split.labelled and n < len(split):
        said.append(f"the first {n} of {len(split)} pictures are explained")
    return said


def explanation(task: Explain, result: Result) -> Explanation:
    """Return the finished result of an Explain as it is in Python."""
    said = result.json(EXPLAINED)
    return Explanation.of(result.tensors(MAPS), task.interpreters, said["classes"], said["names"], said["decisions"])
