"""Local contrast normalisation, as a layer."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

LCNMean = Literal["image", "batch"]
FLAT = 1e-6


class LocalContrastNormalisation(nn.Module):
    """Subtract the local mean and divide by the local contrast: images (N, C, H, W) to as many of that shape.

    v = x - G * x;  s = sqrt(G * v^2);  x' = v / max(mean(s), s, 1e-4). G is a 7x7 Gaussian of sigma 3 with sum 1, over
    all channels at once; outside of the image are zeros (SAME padding). mean(s) is over the positions of each image
    (mean="image"), or over the whole batch (mean="batch"), by which an image's result depends on its batch mates.

    Source: Jarrett et al. 2009, section 2 (for one image at a time); Ross & Doshi-Velez 2018, authors' code
    (mean="batch", one channel). Deviations: s below 1e-6 counts as 0, so that flat places have finite derivatives.
    """

    def __init__(self, mean: LCNMean = "image", size: int = 7, sigma: float = 3.0, floor: float = 1e-4) -> None:
        super().__init__()
        self.mean, self.size, self.sigma, self.floor = mean, size, sigma, floor

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised images."""
        v = x - self._blurred(x)
        power = self._blurred(v.square())
        flat = power < FLAT**2
        s = power.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
        mean = s.mean() if self.mean == "batch" else s.mean((1, 2, 3), keepdim=True)
        return v / torch.maximum(s, mean).clamp(min=self.floor)

    def _blurred(self, x: Tensor) -> Tensor:
        """Return G * x, the sum of all channels: (N, 1, H, W)."""
        offsets = torch.arange(self.size, dtype=x.dtype, device=x.device) - self.size // 2
        line = torch.exp(-0.5 * (offsets / self.sigma).square())
        window = torch.outer(line, line)
        weights = (window / (window.sum() * x.shape[1])).expand(1, x.shape[1], -1, -1)
        return functional.conv2d(x, weights, padding=self.size // 2)
