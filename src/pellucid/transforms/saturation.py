"""Saturation: colours driven to black and white, or to grey."""

from dataclasses import dataclass

from torch import Tensor

from pellucid.guard import check_images
from pellucid.rng import Stream
from pellucid.spec import Positive, register


@register("transform", "saturation")
@dataclass(frozen=True, kw_only=True)
class Saturation:
    """Drive every value towards 0 and 1 (p > 2), which leaves contours and takes texture, or towards 1/2 (p < 2).

    x' = sign(2x - 1) |2x - 1|^(2/p) / 2 + 1/2

    p = 2 changes nothing; for p to infinity images become binary (exactly 1/2 stays), for p to 0 grey. The power is
    that of |2x - 1|, which is halved afterwards. Images (N, C, H, W) float in [0, 1], before any normalisation, on
    any device -> the same. Nothing is random. For p > 2 there is no derivative at x = 1/2. Raises InputError for images
    outside [0, 1].
    Source: Zhang & Zhu 2019, section 3.2 (p = .25, .5, 1, 2, 4, 8, 16, 64, 1024). Deviations: none.

    >>> import torch
    >>> grey = torch.tensor([0.0, 0.375, 0.5, 0.625, 1.0]).view(1, 1, 1, 5)
    >>> Saturation(p=4)(grey).flatten(), Saturation(p=1)(grey).flatten()
    (tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000]), tensor([0.0000, 0.4688, 0.5000, 0.5312, 1.0000]))
    """

    p: Positive

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the saturated images."""
        images = check_images(images)
        signed = 2 * images - 1
        return (signed.sign() * signed.abs() ** (2 / self.p) / 2 + 0.5).clamp(0, 1)
