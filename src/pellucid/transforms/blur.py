"""Gaussian blur."""

from dataclasses import dataclass

from torch import Tensor

from pellucid.guard import check_images
from pellucid.maths.blur import gaussian_blur
from pellucid.rng import Stream
from pellucid.spec import NonNegative, register


@register("transform", "blur")
@dataclass(frozen=True, kw_only=True)
class Blur:
    """Blur by a Gaussian, which takes texture finer than sigma and leaves coarse shape.

    x'(p) = sum_q w(q) x(p - q), w(q) ~ exp(-|q|^2 / (2 sigma^2)), cut at 3 sigma and summing to 1

    Images (N, C, H, W) float in [0, 1], sigma in pixels -> the same shape. sigma = 0 changes nothing. Pixels outside
    are mirrored. Nothing is random. Raises InputError for images outside [0, 1].
    Source: Geirhos et al. 2018, Generalisation in humans and deep neural networks (low-pass filter: a Gaussian).
    Deviations: none.
    """

    sigma: NonNegative

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the blurred images."""
        images = check_images(images)
        return gaussian_blur(images, self.sigma).clamp(0, 1) if self.sigma else images.clone()
