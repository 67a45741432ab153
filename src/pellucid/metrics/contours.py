"""Whether a map follows the contours of its image."""

from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.interpreters.heatmap import reduce_channels
from pellucid.maths.edges import sobel
from pellucid.metrics.maps import spearman


def contour_correlation(maps: Tensor, images: Tensor) -> Tensor:
    """Return the rank correlation of a map's magnitude with the strength of the edges, per image.

    rho(|I|, ||Sobel x||), Spearman's over positions: |I| the magnitudes summed over channels, ||Sobel x|| the
    magnitude of the Sobel gradient of the luma. Higher: the map lies on contours.

    maps (N, h, w) or (N, C, h, w), images (N, C, H, W) float, also beyond [0, 1] (filtered ones) -> float64 (N,) in
    [-1, 1]; NaN where a map is constant or contains NaN, and where an image has no edges, or the same everywhere. To
    a map that is coarser than its image (CAM) the edges are averaged over what each position covers.
    Raises InputError for other shapes, maps finer than the images, and maps and images on two devices.
    Source: none; it puts a number to "saliency maps on contours" of Zhang & Zhu 2019, Figure 2.

    >>> import torch
    >>> step = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).expand(1, 1, 5, 6)
    >>> on_it = torch.tensor([0.0, 0.0, -1.0, 1.0, 0.0, 0.0]).expand(1, 1, 5, 6)
    >>> contour_correlation(on_it, step).round(decimals=9)
    tensor([1.], dtype=torch.float64)
    """
    if images.ndim != 4 or maps.ndim not in (3, 4) or len(maps) != len(images):
        raise InputError(
            f"as many maps (N, h, w) or (N, C, h, w) as images (N, C, H, W) are needed; got {tuple(maps.shape)} and "
            f"{tuple(images.shape)}"
        )
    size, finest = maps.shape[-2:], images.shape[-2:]
    if size[0] > finest[0] or size[1] > finest[1]:
        raise InputError(f"maps {tuple(size)} are finer than the images {tuple(finest)}: their edges are not known")
    edges = sobel(images.detach())
    if size != finest:
        edges = functional.adaptive_avg_pool2d(edges[:, None], (size[0], size[1]))[:, 0]
    return spearman(reduce_channels(maps.detach(), "abs_sum").abs(), edges)
