"""How alike two saliency maps are."""

import inspect
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.statistics import Interval, bootstrap_mean

_BUDGET = 1 << 24  # pairs held at a time
_ALONG_AN_AXIS = "axis" in inspect.signature(stats.kendalltau).parameters  # SciPy 1.17: half the time for 200 x 49


def kendall_tau(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation (Kendall's tau-b) of two maps, per image; higher means more alike.

    tau = (P - Q) / sqrt((n0 - n_a)(n0 - n_b)): P concordant and Q discordant pairs of positions, n0 =
    D(D-1)/2 pairs, n_a and n_b pairs tied in a and in b.

    a, b (N, D), or (N, ...) which is flattened -> float64 (N,) in [-1, 1] on the same device, NaN where a map
    is constant (it ranks nothing) or contains NaN. Raises InputError where the shapes differ. On CPU through
    SciPy, O(D log D) per image; on other devices over all pairs, in parts. Source: Kendall 1945; Boopathy
    et al. 2020, section 5 (Table 3).

    >>> maps = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    >>> kendall_tau(maps, torch.tensor([[2.0, 4.0, 9.0], [3.0, 2.0, 1.0]]))
    tensor([ 1., -1.], dtype=torch.float64)
    """
    a, b = compared(a, b)
    # of two positions SciPy cannot say how unlikely a tau is, which it always does
    return _tau_by_sorting(a, b) if a.device.type == "cpu" and a.shape[1] > 2 else _tau_by_pairs(a, b)


def compared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of maps as (N, D), detached; raise InputError where shapes or devices differ."""
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(f"maps must have the same shape (N, D); got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.device != b.device:
        raise InputError(f"maps must lie on one device; got {a.device} and {b.device}")
    return a.detach().flatten(1), b.detach().flatten(1)


def _tau_by_sorting(a: Tensor, b: Tensor) -> Tensor:
    if not len(a):
        return torch.zeros(0, dtype=torch.float64, device="cpu")
    one, other = a.double().numpy(), b.double().numpy()
    if _ALONG_AN_AXIS:
        return torch.from_numpy(np.atleast_1d(stats.kendalltau(one, other, axis=1, method="asymptotic").statistic))
    taus = [stats.kendalltau(u, v, method="asymptotic").statistic for u, v in zip(one, other)]
    return torch.tensor(taus, dtype=torch.float64, device="cpu")


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation (Spearman's rho) of two maps, per image; higher means more alike.

    rho = Pearson's correlation of the ranks, tied values having the mean of their ranks.

    a, b (N, D), or (N, ...) which is flattened -> float64 (N,) in [-1, 1] on the same device, NaN where a map is
    constant or contains NaN. Raises InputError where the shapes differ. Source: Spearman 1904; Adebayo et al. 2018.

    >>> maps = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    >>> spearman(maps, torch.tensor([[2.0, 4.0, 9.0], [3.0, 2.0, 1.0]])).round(decimals=9)
    tensor([ 1., -1.], dtype=torch.float64)
    """
    a, b = compared(a, b)
    return cosine(_ranks(a), _ranks(b))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of two sets of vectors (N, D), float64 (N,) in [-1, 1]; NaN where one is zero.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([0.6000], dtype=torch.float64)
    """
    a, b = a.double(), b.double()
    size = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return torch.where(size > 0, ((a * b).sum(1) / size).clamp(-1, 1), torch.nan)  # the last bit of the roots


def _ranks(maps: Tensor) -> Tensor:
    """Return the rank of every value of maps (N, D), the mean of its ties, less the mean of all."""
    wide = maps.double().contiguous()
    ranked = wide.sort(dim=1).values
    both = torch.searchsorted(ranked, wide) + torch.searchsorted(ranked, wide, right=True)
    ranks = torch.where(wide.isnan().any(1, keepdim=True), torch.nan, both.double())
    return ranks - ranks.mean(1, keepdim=True)


def top_k_intersection(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Return which share of the k largest positions two maps have in common, per image; higher means more alike.

    |top_k(a) & top_k(b)| / k; of equal values those with the lower index go first.

    a, b (N, D), or (N, ...) which is flattened -> float64 (N,) in [0, 1]; NaN where a map contains NaN. A random map
    shares k/D. Raises InputError where the shapes differ and for k outside 1..D. Source: Chen et al. 2019, section 5
    (integrated gradients, k = 100 on MNIST); Boopathy et al. 2020, appendix (CAM, k = 8). Deviation: the latter's code
    takes the k-th largest along another axis and divides by the size of the map.

    >>> top_k_intersection(torch.tensor([[5.0, 4.0, 1.0, 0.0]]), torch.tensor([[5.0, 0.0, 4.0, 1.0]]), k=2)
    tensor([0.5000], dtype=torch.float64)
    """
    a, b = compared(a, b)
    if not 1 <= k <= a.shape[1]:
        raise InputError(f"k must be 1 to {a.shape[1]}, the positions of a map; got {k}")
    chosen = [torch.zeros_like(maps, dtype=torch.bool).scatter_(1, _largest(maps, k), True) for maps in (a, b)]
    common = (chosen[0] & chosen[1]).sum(1).double() / k
    return torch.where((a.isnan() | b.isnan()).any(1), torch.nan, common)


def _largest(maps: Tensor, k: int) -> Tensor:
    return torch.sort(maps, dim=1, descending=True, stable=True).indices[:, :k]


def _tau_by_pairs(a: Tensor, b: Tensor, budget: int = _BUDGET) -> Tensor:
    """Compare every position with every other one; `budget` bounds the pairs held at a time."""
    n, positions = a.shape
    score = torch.zeros(3, n, dtype=torch.float64, device=a.device)  # P - Q, untied pairs of a, untied pairs of b
    images = max(1, budget // max(1, positions * positions))
    width = max(1, budget // max(1, images * positions))
    for rows in torch.split(torch.arange(n, device=a.device), images):
        for columns in torch.split(torch.arange(positions, device=a.device), width):
            order_a, order_b = _order(a[rows], columns), _order(b[rows], columns)
            for number, pairs in enumerate((order_a * order_b, order_a.abs(), order_b.abs())):
                score[number, rows] += pairs.sum((1, 2), dtype=torch.int64).double()
    tau = (score[0] / (score[1] * score[2]).sqrt()).clamp(-1, 1)  # the last bit of the root
    known = ~(a.isnan() | b.isnan()).any(1)
    return torch.where(known, tau, torch.nan)


def _order(maps: Tensor, columns: Tensor) -> Tensor:
    one, other = maps[:, columns, None], maps[:, None, :]
    return (one > other).to(torch.int8) - (one < other).to(torch.int8)  # a difference could underflow


class Stability(NamedTuple):
    """Mean tau with its interval, how many images it rests on, and how many kept ones had no tau."""

    tau: Interval
    kept: int
    undefined: int


def stability(tau: Tensor, kept: Tensor, confidence: float = 0.95, seed: int = 0) -> Stability:
    """Return the mean rank correlation over the images that were kept; higher means more stable maps.

    (1/|S|) sum_{n in S} tau_n, S = {n kept, tau_n defined}; kept: images whose predicted class did not
    change.

    tau (N,), kept bool (N,) -> mean with bootstrap interval; `kept` is |S| (look at it: for weak networks a
    mean may rest on one image), `undefined` counts kept images without a tau (constant maps), which are left
    out. With no image left the mean is NaN (the authors' code gives 0). Raises InputError where the shapes
    differ. Source: Boopathy et al. 2020, Table 3 and authors' code.

    >>> result = stability(torch.tensor([0.5, 0.7, -1.0]), torch.tensor([True, True, False]))
    >>> round(result.tau.value, 3), result.kept
    (0.6, 2)
    """
    if tau.shape != kept.shape or tau.ndim != 1 or kept.dtype != torch.bool:
        raise InputError(
            f"tau and kept must both be (N,), kept of truth values; got {tuple(tau.shape)} and "
            f"{tuple(kept.shape)} ({kept.dtype})"
        )
    chosen = tau[kept.to(tau.device)]
    defined = chosen[~chosen.isnan()]
    return Stability(bootstrap_mean(defined, confidence, seed), len(defined), len(chosen) - len(defined))
