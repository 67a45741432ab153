"""Random changes of training images that leave what they show as it was."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.errors import InputError
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, Whole, member, preset, register


@runtime_checkable
class Augmentation(Protocol):
    """augment(images) -> images, of the same shape, dtype, device and range; each by random numbers of its own.

    One that crops (`crops = True`) is handed images with their frame (`Split.images(framed=True)`), and gives smaller
    ones.
    """

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the changed images."""
        ...


AugmentationField = Annotated[Augmentation, member("augmentation")]


@register("augmentation", "crop_and_flip")
@dataclass(frozen=True, kw_only=True)
class CropAndFlip:
    """Shift each image at random inside a black frame, and mirror every second one.

    x' = x zero-padded by `padding` on all sides, cropped back to its size at one of (2 padding + 1)^2 places, all
    equally likely, and (`flip`) mirrored left to right with probability 1/2.

    Images (N, C, H, W) on any device, float in [0, 1] or uint8. By default the random numbers are those of
    `Stream()`: the same in every call. The name "flip" stands for padding=0.

    Source: Zhang & Zhu 2019 on CIFAR-10 (padding 4), after He et al. 2016, section 4.2.
    Deviations: none.
    """

    padding: Whole = 4
    flip: Flag = True

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return new images, each cropped and mirrored by its own random numbers."""
        rng = rng or Stream()
        height, width = images.shape[-2:]
        rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        columns = columns.expand(len(images), width)
        if self.flip:
            mirrored = rng.child("flip").integers(images, 2).bool()
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        places = 2 * self.padding + 1
        rows = rows + rng.child("row").integers(images, places)[:, None]
        columns = columns + rng.child("column").integers(images, places)[:, None]
        return _taken(pad(images, [self.padding] * 4), rows, columns)


@register("augmentation", "random_crop")
@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Cut a square out of each image at random, and mirror every second one.

    x' = x[top : top + size, left : left + size], all places inside the image equally likely, and (`flip`) mirrored left
    to right with probability 1/2.

    Images (N, C, H, W) on any device, float in [0, 1] or uint8 -> (N, C, size, size). Of a data set that keeps a frame
    for it (caltech256 crop=224) it gets the framed images. By default the random numbers are those of `Stream()`.
    Raises InputError for images smaller than `size`.

    Source: Zhang & Zhu 2019, authors' code on Caltech-256 (crop 224 of 256, flip).
    Deviations: none.
    """

    size: Count = 224
    flip: Flag = True
    crops: ClassVar[bool] = True

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return new images, each cropped and mirrored by its own random numbers."""
        rng = rng or Stream()
        height, width = images.shape[-2:]
        if min(height, width) < self.size:
            raise InputError(f"augmentation random_crop: images {height}x{width} are smaller than size={self.size}")
        rows = columns = torch.arange(self.size, device=images.device).expand(len(images), self.size)
        if self.flip:
            mirrored = rng.child("flip").integers(images, 2).bool()
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        rows = rows + rng.child("row").integers(images, height - self.size + 1)[:, None]
        columns = columns + rng.child("column").integers(images, width - self.size + 1)[:, None]
        return _taken(images, rows, columns)


def _taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return of each image the pixels at its own rows (N, h) and columns (N, w), (N, C, h, w)."""
    n, channels = images.shape[:2]
    index = rows[:, :, None] * images.shape[-1] + columns[:, None, :]
    taken = images.flatten(2).gather(2, index.view(n, 1, -1).expand(-1, channels, -1))
    return taken.view(n, channels, rows.shape[-1], columns.shape[-1])


preset("augmentation", "flip", CropAndFlip(padding=0))
