"""Gaussian noise."""

from dataclasses import dataclass

from torch import Tensor

from pellucid.guard import check_images
from pellucid.rng import Stream
from pellucid.spec import Flag, NonNegative, register


@register("transform", "gaussian_noise")
@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Add normal noise to every value, which hides fine texture before it hides shape.

    x' = clip(x + sigma n, 0, 1), n standard normal, independent for each value of each image

    Images (N, C, H, W) float in [0, 1], sigma in the same units -> the same shape. sigma = 0 changes nothing.
    clip=False leaves the noise whole; values then leave [0, 1], which networks take but attacks and metrics refuse.
    Raises InputError for images outside [0, 1].
    Source: Geirhos et al. 2018, Generalisation in humans and deep neural networks (uniform noise there). Deviations:
    the noise is normal and in colour.
    """

    sigma: NonNegative
    clip: Flag = True

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the noisy images."""
        images = check_images(images)
        noisy = images + self.sigma * (rng or Stream()).child("noise").normal(images)
        return noisy.clamp(0, 1) if self.clip else noisy
