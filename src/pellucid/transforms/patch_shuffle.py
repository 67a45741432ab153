"""Patch shuffle: the parts of an image change places."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.guard import check_images
from pellucid.rng import Stream
from pellucid.spec import Count, register


@register("transform", "patch_shuffle")
@dataclass(frozen=True, kw_only=True)
class PatchShuffle:
    """Cut an image into k x k equal patches and put them together in a random order: texture without shape.

    Patch i of x' is patch s(i) of x, i counted row by row, s one random permutation of 0..k^2-1 per image, the same
    for all channels. No pixel changes or is lost; k = 1 changes nothing. What Zhang & Zhu's text calls "patch-shuffle
    1" is the case of 2 x 2 patches, k = 2.

    Images (N, C, H, W) float in [0, 1], on any device -> the same. Raises InputError for images outside [0, 1] and
    where k does not divide height and width, naming the k that do; rest="stay" then leaves the rows and columns that
    are over (fewer than k, at the edges, half of them on each side) where they are, and shuffles what they frame.
    form="code" puts the patches back column by column, as the authors' code does: with the same random numbers
    another permutation, and as random.
    Source: Zhang & Zhu 2019, section 3.2 (k = 2, 4, 8). Deviations: rest="stay" is this library's.
    """

    k: Count
    rest: Literal["refuse", "stay"] = "refuse"
    form: Literal["paper", "code"] = "paper"

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the shuffled images."""
        images, rng = check_images(images), rng or Stream()
        height, width = self._patch(images)
        top, left = (images.shape[2] - self.k * height) // 2, (images.shape[3] - self.k * width) // 2
        order = rng.child("patches").words(images, (self.k * self.k,)).argsort(dim=1, stable=True)
        if self.form == "code":
            order = order.view(-1, self.k, self.k).mT.flatten(1)
        out = images.clone()
        inside = out[:, :, top : top + self.k * height, left : left + self.k * width]
        grid = (len(images), images.shape[1], self.k, height, self.k, width)
        patches = inside.reshape(grid).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        shuffled = patches[torch.arange(len(images), device=images.device)[:, None], order]
        back = shuffled.view(len(images), self.k, self.k, *shuffled.shape[2:]).permute(0, 3, 1, 4, 2, 5)
        inside.copy_(back.reshape(inside.shape))
        return out

    def _patch(self, images: Tensor) -> tuple[int, int]:
        """Return height and width of a patch; refuse images that cannot be cut into k x k of them."""
        height, width = images.shape[2:]
        if self.k > min(height, width) or (self.rest == "refuse" and (height % self.k or width % self.k)):
            whole = [k for k in range(1, min(height, width) + 1) if height % k == 0 and width % k == 0]
            hint = '; or leave what is over in place (rest="stay")' if self.k <= min(height, width) else ""
            raise InputError(
                f"images of {height} x {width} pixels cannot be cut into {self.k} x {self.k} equal patches: "
                f"k may be {', '.join(map(str, whole))}{hint}"
            )
        return height // self.k, width // self.k
