"""Random changes of training images that leave what they show as it was."""

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad

from pellucid.rng import Stream
from pellucid.spec import Flag, Whole, member, preset, register


@runtime_checkable
class Augmentation(Protocol):
    """augment(images) -> images, of the same shape, dtype, device and range; each by random numbers of its own."""

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
        index = rows[:, :, None] * (width + 2 * self.padding) + columns[:, None, :]
        padded = pad(images, [self.padding] * 4).flatten(2)
        return padded.gather(2, index.view(len(images), 1, -1).expand(-1, images.shape[1], -1)).view(images.shape)


preset("augmentation", "flip", CropAndFlip(padding=0))
