"""Silhouette: the object of an image as a black shape on white, as far as it can be found."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.guard import check_images
from pellucid.maths.blur import gaussian_blur
from pellucid.maths.regions import filled, large_regions, otsu
from pellucid.rng import Stream
from pellucid.spec import Positive, Share, register

_FRAME = 1 / 16  # width of the frame, in image sides
_SMOOTH = 1 / 64  # blur before colours are compared, in image sides
_SHADE = 0.01  # differences of colour that no background is free of
_LEAST = 1 / 255 / _SHADE  # the distance of one 8-bit level from a plain background


@register("transform", "silhouette")
@dataclass(frozen=True, kw_only=True)
class Silhouette:
    """Paint what is taken for the object black and all else white, which leaves the outline and nothing else.

    d(p) = sqrt((x(p) - m)^T (S + 0.01^2 I)^-1 (x(p) - m)) exp(-|p - c|^2 / (2 centre^2)), x' = 0 where d > t, else 1

    No mask is asked for: the object is guessed. m and S are mean and covariance of the colours in the image's frame (a
    sixteenth of the sides wide), taken as the background; c is the middle of the image, |p - c| in image sides, centre
    the width of the prior that objects stand there (large: no prior); t is Otsu's threshold on d, and at least one
    8-bit level on plain ground. Of the regions found, those smaller than `smallest` times the largest are dropped, and
    holes are filled. Colours are compared after a blur of a 64th of the longer side. An image without an object
    (constant, or one pixel) becomes white.
    Right for one object near the middle on a background that the frame shows; a background of many colours, an object
    that leaves the image, and parts in the background's colours come out wrong. Look at some before trusting a number.
    Images (N, C, H, W) float in [0, 1] -> the same shape, all channels alike. Nothing is random. Raises InputError
    for images outside [0, 1].
    Source: Geirhos et al. 2019, data sets of the psychophysics (silhouettes); threshold: Otsu 1979. Deviations: theirs
    are of objects photographed on white, which need not be guessed.
    """

    centre: Positive = 0.4
    smallest: Share = 0.1

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the silhouettes."""
        images = check_images(images)
        white = ~self.objects(images)[:, None]
        return white.to(images.dtype).repeat(1, images.shape[1], 1, 1)

    def objects(self, images: Tensor) -> Tensor:
        """Return where the objects of images (N, C, H, W) are taken to be, bool (N, H, W)."""
        distance = _from_frame(gaussian_blur(images.double(), _SMOOTH * max(images.shape[2:])))
        across = [((line + 0.5) / len(line) - 0.5) / self.centre for line in _lines(images)]
        distance = distance * torch.exp(-0.5 * (across[0].square()[:, None] + across[1].square()))
        largest = distance.amax((1, 2), keepdim=True).clamp(min=_LEAST)
        threshold = (largest * otsu(distance / largest)).clamp(min=_LEAST)
        return filled(large_regions(distance > threshold, self.smallest))


def _lines(images: Tensor) -> list[Tensor]:
    """Return the numbers of the rows and of the columns."""
    return [torch.arange(n, device=images.device) for n in images.shape[2:]]


def _from_frame(images: Tensor) -> Tensor:
    """Return how far the colours of images (N, C, H, W) are from those of their frames (Mahalanobis), (N, H, W)."""
    rows, columns = (
        torch.minimum(line, len(line) - 1 - line) < max(1, round(_FRAME * len(line))) for line in _lines(images)
    )
    frame = images[:, :, rows[:, None] | columns]
    mean = frame.mean(2, keepdim=True)
    apart = (images.flatten(2) - mean).contiguous()
    own = frame - mean
    covariance = own @ own.mT / own.shape[2] + _SHADE**2 * torch.eye(images.shape[1]).to(images)
    squared: Tensor = (apart * torch.linalg.solve(covariance, apart)).sum(1)
    return squared.clamp(min=0).sqrt().view(-1, *images.shape[2:])
