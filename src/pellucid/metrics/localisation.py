"""Where the evidence is: how much of a saliency map lies on the object, given its mask."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.metrics.map_evidence import Sign, evidence


class _Case(NamedTuple):
    """What all measures look at, flattened: evidence (N, D) >= 0, the object (N, D), and which rows say anything."""

    evidence: Tensor
    on: Tensor
    defined: Tensor


def _prepare(maps: Tensor, mask: Tensor, sign: Sign) -> _Case:
    if mask.ndim != 3 or mask.dtype != torch.bool or len(mask) != len(maps):
        raise InputError(
            f"the mask must be truth values (N, H, W), one per map ({len(maps)} here); "
            f"got shape {tuple(mask.shape)} ({mask.dtype})"
        )
    flat, on = evidence(maps, (mask.shape[1], mask.shape[2]), sign).flatten(1), mask.to(maps.device).flatten(1)
    return _Case(flat, on, flat.isfinite().all(1) & on.any(1) & ~on.all(1))


def chance(mask: Tensor) -> Tensor:
    """Return the share of pixels on the object: what a map that knows nothing scores by mass, rank and precision.

    |M| / D. mask (N, H, W) of truth values -> float64 (N,) in [0, 1]; neither high nor low is good. A map that
    knows nothing has an area under the ROC curve of 1/2 whatever the mask. Raises InputError for other shapes.

    >>> chance(torch.tensor([[[True, False], [False, False]]]))
    tensor([0.2500], dtype=torch.float64)
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise InputError(f"the mask must be truth values (N, H, W); got shape {tuple(mask.shape)} ({mask.dtype})")
    return mask.flatten(1).double().mean(1)


def mass_on_object(maps: Tensor, mask: Tensor, *, sign: Sign = "magnitude") -> Tensor:
    """Return the share of a map's mass that lies on the object, per image; higher is better.

    sum_{i in M} E_i / sum_i E_i, E the `evidence`; `chance` is what a constant map scores.

    maps (N, h, w) or (N, C, h, w), mask (N, H, W) of truth values -> float64 (N,) in [0, 1]; NaN where the map has
    no mass or contains NaN or infinity, and where the object is nowhere or everywhere. Raises InputError for other
    shapes. Source: Arras et al. 2022, "relevance mass accuracy" (Quantus RelevanceMassAccuracy). Deviation: Quantus
    sums signed maps unless told otherwise, so its shares can leave [0, 1]; a full mask scores 1 there.

    >>> mass_on_object(torch.tensor([[[3.0, -1.0]]]), torch.tensor([[[True, False]]]))
    tensor([0.7500], dtype=torch.float64)
    """
    case = _prepare(maps, mask, sign)
    total = case.evidence.sum(1)
    share = (case.evidence * case.on).sum(1) / total
    return torch.where(case.defined & (total > 0), share, torch.nan)


def pointing_game(maps: Tensor, mask: Tensor, *, tolerance: int = 0, sign: Sign = "magnitude") -> Tensor:
    """Return whether the largest value of a map lies on the object, per image; higher is better.

    Hit where argmax_i E_i lies in M, or within `tolerance` pixels of it (Euclidean); where several pixels share the
    largest value, one of them suffices.

    maps (N, h, w) or (N, C, h, w), mask (N, H, W) of truth values -> bool (N,). A miss: constant maps, which point
    nowhere; maps with NaN or infinity; empty masks. Full masks are hit by every other map: leave them out by
    `chance(mask) < 1`. Raises InputError for other shapes and a negative tolerance. Source: Zhang et al. 2018,
    section 4.2 (there 15 pixels are tolerated); Quantus PointingGame. Deviation: Quantus counts a constant map as a
    hit, and tolerates nothing.

    >>> maps = torch.tensor([[[0.0, 0.2, 0.9]]])
    >>> mask = torch.tensor([[[False, True, False]]])
    >>> pointing_game(maps, mask), pointing_game(maps, mask, tolerance=1)
    (tensor([False]), tensor([True]))
    """
    if tolerance < 0:
        raise InputError(f"tolerance must be 0 pixels or more; got {tolerance}")
    case = _prepare(maps, mask, sign)
    low, high = case.evidence.aminmax(dim=1, keepdim=True)
    near = _widened(mask.to(maps.device), tolerance).flatten(1)
    hit = ((case.evidence == high) & near).any(1)
    return hit & (high > low)[:, 0] & case.evidence.isfinite().all(1)


def _widened(mask: Tensor, radius: int) -> Tensor:
    """Return the mask (N, H, W) with all pixels within `radius` of it: one horizontal maximum per row of the disc."""
    if radius == 0 or not len(mask):
        return mask
    height = mask.shape[1]
    padded = functional.pad(mask.float(), (0, 0, radius, radius))
    out = mask
    for offset in range(-radius, radius + 1):
        half = int((radius * radius - offset * offset) ** 0.5)
        rows = padded[:, radius + offset : radius + offset + height]
        out = out | (functional.max_pool2d(rows[:, None], (1, 2 * half + 1), 1, (0, half))[:, 0] > 0)
    return out


def _groups(ranked: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for values (N, D) in order, the first and the last position of the ties that each belongs to."""
    place = torch.arange(ranked.shape[1], device=ranked.device).expand(ranked.shape)
    edge = ranked[:, 1:] != ranked[:, :-1]
    end = torch.ones_like(edge[:, :1]) if edge.shape[1] else torch.ones_like(ranked, dtype=torch.bool)
    first = torch.where(torch.cat([end, edge], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([edge, end], 1), place, ranked.shape[1]).flip(1).cummin(1).values.flip(1)
    return first, last


def _ranked(case: _Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the object in order of decreasing evidence, its running count, and the first and last of all ties."""
    ranked, order = torch.sort(case.evidence, dim=1, descending=True)
    on = case.on.gather(1, order)
    return on, on.cumsum(1), *_groups(ranked)


def rank_accuracy(maps: Tensor, mask: Tensor, *, sign: Sign = "magnitude") -> Tensor:
    """Return which share of the |M| largest values of a map lies on the object M, per image; higher is better.

    |top_|M|(E) cap M| / |M|; ties at the edge of the top count by the share of the object among them, so a
    constant map scores `chance`.

    maps (N, h, w) or (N, C, h, w), mask (N, H, W) of truth values -> float64 (N,) in [0, 1], NaN where the map
    contains NaN or infinity and where the object is nowhere or everywhere. Raises InputError for other shapes.
    Source: Arras et al. 2022, "relevance rank accuracy" (Quantus RelevanceRankAccuracy). Deviation: Quantus breaks
    ties by whatever its sort leaves first.

    >>> mask = torch.tensor([[[True, True, False, False]]])
    >>> rank_accuracy(torch.tensor([[[0.9, 0.1, 0.1, 0.0]]]), mask)
    tensor([0.7500], dtype=torch.float64)
    """
    case = _prepare(maps, mask, sign)
    _, count, first, last = _ranked(case)
    size = case.on.sum(1, keepdim=True)
    edge = (size - 1).clamp_min(0)  # the last position of the top
    start, stop = first.gather(1, edge), last.gather(1, edge)
    before = torch.where(start > 0, count.gather(1, (start - 1).clamp_min(0)), 0)
    tied = count.gather(1, stop) - before
    hits = before + tied * (size - start).double() / (stop - start + 1)
    return torch.where(case.defined, (hits / size)[:, 0], torch.nan)


def average_precision(maps: Tensor, mask: Tensor, *, sign: Sign = "magnitude") -> Tensor:
    """Return the area under the precision-recall curve of finding the object by the map; higher is better.

    sum_t (R_t - R_{t-1}) P_t over the distinct values t of the map, largest first; P_t, R_t precision and recall of
    {i : E_i >= t} against the object. A constant map scores `chance`.

    maps (N, h, w) or (N, C, h, w), mask (N, H, W) of truth values -> float64 (N,) in [0, 1], NaN where the map
    contains NaN or infinity and where the object is nowhere or everywhere. Raises InputError for other shapes.
    Source: as scikit-learn's average_precision_score, on tensors of any device.

    >>> mask = torch.tensor([[[True, False, True]]])
    >>> average_precision(torch.tensor([[[0.9, 0.5, 0.1]]]), mask)
    tensor([0.8333], dtype=torch.float64)
    """
    case = _prepare(maps, mask, sign)
    on, count, _, last = _ranked(case)
    precision = count.gather(1, last).double() / (last + 1)
    return torch.where(case.defined, (precision * on).sum(1) / case.on.sum(1), torch.nan)


def roc_auc(maps: Tensor, mask: Tensor, *, sign: Sign = "magnitude") -> Tensor:
    """Return the area under the ROC curve of finding the object by the map, per image; higher is better.

    P(E_i > E_j) + P(E_i = E_j) / 2 for i drawn from the object and j from the rest; 1/2 is chance, whatever the
    object's size.

    maps (N, h, w) or (N, C, h, w), mask (N, H, W) of truth values -> float64 (N,) in [0, 1], NaN where the map
    contains NaN or infinity and where the object is nowhere or everywhere. Raises InputError for other shapes.
    Source: as scikit-learn's roc_auc_score, on tensors of any device (Quantus AUC); Fawcett 2006.

    >>> mask = torch.tensor([[[True, False, False]]])
    >>> roc_auc(torch.tensor([[[0.5, 0.5, 0.1]]]), mask)
    tensor([0.7500], dtype=torch.float64)
    """
    case = _prepare(maps, mask, sign)
    on, _, first, last = _ranked(case)
    off = (~on).cumsum(1)
    above = torch.where(first > 0, off.gather(1, (first - 1).clamp_min(0)), 0)
    below = off[:, -1:] - off.gather(1, last)
    won = (below + (off.gather(1, last) - above).double() / 2) * on
    return torch.where(case.defined, won.sum(1) / (case.on.sum(1) * off[:, -1]), torch.nan)
