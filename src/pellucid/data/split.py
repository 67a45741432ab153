"""One part of a data set: images, labels, and where they come from."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.data.encoded import Encoded
from pellucid.errors import DataError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) with labels (N,) and class names; `images(rows)` gives float32 in [0, 1].

    `pixels` are uint8; for sets too large for memory they are an `Encoded`, indexed by rows in the same way. Values
    that 8 bits cannot hold are float32, in the papers' units. `value_range` is the range of the data in those units:
    pixel value v of the papers is low + (high - low) * x. `cut` says in words which part of which published split
    this is; `sha256` is over pixels and labels (encoded images, their form and labels where `pixels` is an `Encoded`;
    the 8-bit pixels that they were made from where they are float32), and masks where there are any.
    `masks`, bool (N, H, W), say exactly which pixels are the object's, in sets that know. `labelled` False means
    that the images came without classes: labels are all 0 then and say nothing, nor do `classes`. `names` are
    the images' file names, for titles, in sets that have them. `skipped` names the images that were left out of the
    published split, each with the reason. Pixels have a frame of `margin` on each side, which images have only when it
    is asked for: random crops are taken from the framed ones, and without it one sees the centre.
    Loaded splits are shared between callers: their tensors are read, never written.
    """

    name: str
    part: str
    pixels: Tensor | Encoded
    labels: Tensor
    classes: tuple[str, ...]
    sha256: str
    cut: str
    source: str
    value_range: tuple[float, float] = (0.0, 1.0)
    masks: Tensor | None = None
    labelled: bool = True
    names: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    margin: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images, without the frame."""
        c, h, w = self.pixels.shape[1:]
        return c, h - 2 * self.margin, w - 2 * self.margin

    def images(self, rows: Tensor | slice | None = None, *, framed: bool = False) -> Tensor:
        """Return float32 images in [0, 1], of some rows or of all; `framed` with the frame for random crops."""
        chosen = self.pixels[slice(None) if rows is None else rows]
        if self.margin and not framed:
            chosen = chosen[..., self.margin : -self.margin, self.margin : -self.margin]
        if not chosen.is_floating_point():
            return chosen.to(torch.float32) / 255
        low, high = self.value_range
        return ((chosen - low) / (high - low)).clamp(0, 1)

    def at(self, rows: Tensor, sha256: str, cut: str) -> "Split":
        """Return some images of the split, in the order of their rows (n,), under a name of their own."""
        return replace(
            self,
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            masks=None if self.masks is None else self.masks[rows],
            names=None if self.names is None else tuple(self.names[row] for row in rows.tolist()),
            sha256=sha256,
            cut=cut,
        )

    def to(self, device: torch.device | str) -> "Split":
        """Return the split with pixels, labels and masks on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), masks=masks)


def check_part(part: str) -> None:
    """Raise DataError unless `part` is one of the three parts."""
    if part not in PARTS:
        raise DataError(f"a data set has the parts train, validation and test, not {part!r}")
