"""A data set with a random draw of its test images, as papers evaluate on a few hundred of them."""

from dataclasses import dataclass

import numpy as np
import torch

from pellucid.data.split import Split
from pellucid.errors import SpecError
from pellucid.protocols import DataField
from pellucid.spec import Count, Whole, register


@register("data", "drawn")
@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Another data set, with `images` of its test images drawn at random by a published seed.

    Rows: the first `images` of numpy's legacy RandomState(seed).permutation(n), in that order. Train and validation
    are those of `of`. Source: the 200 points of Boopathy et al. 2020 (authors' code, seed 99).
    """

    of: DataField
    images: Count = 200
    seed: Whole = 99

    def check(self) -> None:
        """Refuse seeds that numpy's legacy generator cannot take."""
        if self.seed >= 2**32:
            raise SpecError(f"data drawn.seed must be below 2^32, not {self.seed}")

    def load(self, part: str) -> Split:
        """Return a part of the data set, or the drawn test images."""
        whole = self.of.load(part)
        if part != "test":
            return whole
        rows = torch.from_numpy(np.random.RandomState(self.seed).permutation(len(whole))[: self.images])
        return whole.at(
            rows,
            sha256=f"{whole.sha256}, {len(rows)} drawn with seed {self.seed}",
            cut=f"{len(rows):,} images drawn with numpy's RandomState({self.seed}) from {whole.cut}",
        )
