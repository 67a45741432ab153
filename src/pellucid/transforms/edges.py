"""Edges: the contours of an image as dark lines on white."""

from dataclasses import dataclass

from torch import Tensor

from pellucid.guard import check_images
from pellucid.maths.edges import sobel
from pellucid.rng import Stream
from pellucid.spec import Share, register

_FAINT = 4 / 255  # the Sobel magnitude of a step of one 8-bit level


@register("transform", "edges")
@dataclass(frozen=True, kw_only=True)
class Edges:
    """Draw the contours of an image as dark lines on white: shape with hardly any texture.

    x' = 1 - g / max g, in every channel; with a threshold x' = 0 where g / max g > threshold, else 1

    g is the Sobel magnitude of the luma and its maximum that of the image, so that contrast does not count; where it
    is below that of a step of 1/255, that value stands for it, and a constant image becomes white. Texture that is
    as strong as contours is drawn as well: blur the image first, or set a threshold.
    Images (N, C, H, W) float in [0, 1] -> the same shape. Nothing is random. Raises InputError for images outside
    [0, 1].
    Source: Geirhos et al. 2019, data sets of the psychophysics (edges). Deviations: the gradient magnitude
    instead of Canny's edges.
    """

    threshold: Share | None = None

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the drawings."""
        images = check_images(images)
        size = sobel(images)[:, None]
        size = size / size.amax((2, 3), keepdim=True).clamp(min=_FAINT)
        drawn = 1 - size if self.threshold is None else (size <= self.threshold).to(images.dtype)
        return drawn.clamp(0, 1).repeat(1, images.shape[1], 1, 1)
