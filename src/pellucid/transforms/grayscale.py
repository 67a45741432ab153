"""Grayscale: colour taken away."""

from dataclasses import dataclass

from torch import Tensor

from pellucid.guard import check_images
from pellucid.maths.edges import luma
from pellucid.rng import Stream
from pellucid.spec import register


@register("transform", "grayscale")
@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Take away colour: all channels become the luma, and keep shape and the grain of texture.

    x' = 0.299 R + 0.587 G + 0.114 B, in every channel

    Images (N, C, H, W) float in [0, 1] -> the same shape. One channel stays as it is; of other numbers of channels
    than three it is their mean. Nothing is random. Raises InputError for images outside [0, 1].
    Source: Geirhos et al. 2019, data sets of the psychophysics; weights: ITU-R BT.601. Deviations: none.
    """

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the grey images."""
        images = check_images(images)
        return luma(images)[:, None].clamp(0, 1).repeat(1, images.shape[1], 1, 1)
