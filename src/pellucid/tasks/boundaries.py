"""The task that measures how far the decision boundary is, and how steep the network is here and there."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pellucid.attacks import DeepFool
from pellucid.data.split import Split
from pellucid.errors import DataError
from pellucid.metrics import jacobian_frobenius_norm, predict, relative_perturbation
from pellucid.models import Classifier
from pellucid.protocols import AttackField, DataField, Part
from pellucid.rng import Stream, derive
from pellucid.spec import Count, Whole, name_of, register
from pellucid.tasks.cost import Cost
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import cost_of_images, count_images, in_chunks
from pellucid.tasks.parquet import write_columns
from pellucid.tasks.training import NetworkField, network_name, stand_in


@register("task", "boundaries")
@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """How far a minimal attack has to move each image, and the size of the network's Jacobian before and after.

    The result is boundaries.parquet: index, label, before and after (what the network predicts), length ||x||_2,
    share ||x' - x||_2 / ||x||_2 (NaN for an image that is black all over), jacobian_clean ||J(x)||_F and
    jacobian_perturbed ||J(x')||_F of the logits, by K exact backward passes. Where after = before the attack did not
    reach a boundary. Images that were misclassified to begin with are moved like all others.
    Raises DataError for images without labels.
    Source: Jakubovitz & Giryes 2018, section 4.1 (rho_adv is the mean share, with DeepFool) and Table 1.
    """

    network: NetworkField
    data: DataField
    part: Part = "test"
    attack: AttackField = field(default_factory=DeepFool)
    images: Count = 1000
    chunk: Count = 100
    seed: Whole = 0

    def title(self) -> str:
        """Name the work for people."""
        return f"{name_of(self.attack)} and Jacobian of {network_name(self.network)}"

    def run(self, io: Io) -> list[str]:
        """Measure chunk by chunk; finished chunks are not made again."""
        split = io.data(self.data, self.part)
        if not split.labelled:
            raise DataError(f"{split.name} has no labels: boundaries are measured on labelled images")
        io.classes_fit(self.network, split)
        network, n = io.network(self.network), count_images(split, self.images)
        found = []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, network, split)):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        columns = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        write_columns(io.scratch / "boundaries.parquet", columns)
        return ["boundaries.parquet"]

    def rehearse(self, io: Io) -> Cost:
        """Try a few images and return what all of them may cost."""
        split = self.data.load(self.part)
        network = stand_in(io, self.network, split)
        return cost_of_images(partial(self._work, io, network, split), count_images(split, self.images), self.chunk)

    def _work(self, io: Io, network: Classifier, split: Split, rows: Tensor) -> dict[str, Tensor]:
        x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
        moved = self.attack(network, x, y, rng=Stream(derive(self.seed, "attack"), rows.to(io.device)))
        return {
            "index": rows,
            "label": y,
            "before": predict(network, x),
            "after": predict(network, moved),
            "length": torch.linalg.vector_norm(x.double().flatten(1), dim=1),
            "share": relative_perturbation(x, moved),
            "jacobian_clean": jacobian_frobenius_norm(network, x),
            "jacobian_perturbed": jacobian_frobenius_norm(network, moved),
        }
