"""How concentrated a saliency map is."""

import torch
from torch import Tensor

from pellucid.metrics.maps import compared


def sparsity(maps: Tensor) -> Tensor:
    """Return the Gini index of a map's magnitudes, per image; higher means that fewer positions hold more of it.

    G = 1 - 2 sum_k (a_(k) / ||a||_1) (D - k + 1/2) / D, a_(1) <= ... <= a_(D) the sorted magnitudes |I_i|.

    maps (N, D), or (N, ...) which is flattened -> float64 (N,) in [0, 1 - 1/D]: 0 where all magnitudes are alike,
    1 - 1/D where one position holds everything; NaN where the map is zero or contains NaN or infinity. Raises
    InputError for maps without an axis of positions. Source: Hurley & Rickard 2009, Table I; for maps, Chalasani et
    al. 2020 (Quantus Sparseness). Deviations: none.

    >>> sparsity(torch.tensor([[0.0, 0.0, 0.0, 2.0], [1.0, 1.0, -1.0, 1.0]]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    sizes = compared(maps, maps)[0].double().abs().sort(dim=1).values
    positions = sizes.shape[1]
    place = torch.arange(1, positions + 1, dtype=torch.float64, device=maps.device)
    total = sizes.sum(1)
    # the same sum, of weights that add up to 0: the smallest magnitude may go, so that 0 is reached without rounding
    weights = (2 * place - positions - 1) / max(positions, 1)
    index = ((sizes - sizes[:, :1]) / total[:, None] * weights).sum(1)
    return torch.where((total > 0) & total.isfinite(), index, torch.nan)
