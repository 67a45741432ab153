"""Adversarial saliency (Papernot et al. 2016): which feature, or which pair of features, helps a class most.

a is the slope of the class's score, b that of the sum of all other scores. A pair p < q qualifies if
alpha = a_p + a_q > 0 and beta = b_p + b_q < 0; the best one has the highest -alpha beta. The search is exact, in
memory linear in the number of features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_CELLS = 1 << 20  # pairs looked at in one go
_WIDE = 256  # an image with more candidates than this is searched by itself: its width is not that of the others


def best_pair(a: Tensor, b: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best pairs of free features, int64 (N, 2) with p < q, and where there is one, bool (N,).

    a, b (N, D) finite slopes; free (N, D), the features that may be chosen. Of pairs with equal saliency the one
    with the smallest p is taken, then the one with the smallest q. Saliency is computed in float64.

    A feature whose a is no higher and whose b is no lower than those of two others can be replaced by one of
    them in every pair, so it is never needed. Comparison with two strong features leaves few; of these, one sort and
    two running maxima find the handful that must be searched pair by pair, in pieces where it is long (a and b
    strictly anti-related: all D of them).

    >>> best_pair(torch.tensor([[1., 3., 2.]]), torch.tensor([[-2., 1., -1.]]), torch.ones(1, 3, dtype=torch.bool))
    (tensor([[0, 2]]), tensor([True]))
    """
    gain, fall = (_scaled(slope).masked_fill(~free, -torch.inf) for slope in (a, -b))
    place = torch.arange(a.shape[1], device=a.device).expand(a.shape)
    place, gain, fall = _packed(_promising(gain, fall), place, gain, fall)
    kept = _candidates(gain, fall)
    pairs = torch.zeros(len(a), 2, dtype=torch.int64, device=a.device)
    found = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    for group in _groups(kept.sum(1)):
        own_place, *own = _packed(kept[group], place[group], gain[group], fall[group])
        chosen, found[group] = _search(*own)
        pairs[group] = own_place.gather(1, chosen)
    return pairs, found


def best_feature(a: Tensor, b: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return the free features with the highest -a b among those with a > 0 and b < 0, (N, 1), and where one is.

    Of equals the first is taken. a, b, free (N, D).

    >>> best_feature(torch.tensor([[1., 3., 2.]]), torch.tensor([[-2., 1., -2.]]), torch.ones(1, 3, dtype=torch.bool))
    (tensor([[2]]), tensor([True]))
    """
    gain, fall = _scaled(a), _scaled(-b)
    score, place = torch.where((gain > 0) & (fall > 0) & free, gain * fall, -1.0).max(1, keepdim=True)
    return place, score[:, 0] >= 0


def _scaled(slope: Tensor) -> Tensor:
    """Return slopes times a power of two per image, so that products of tiny or huge ones stay numbers."""
    slope = slope.double()
    peak = slope.abs().amax(1, keepdim=True).clamp(min=2.0**-1000)
    return slope * (torch.frexp(peak).mantissa / peak)  # the quotient is a power of two: nothing is rounded


def _packed(kept: Tensor, place: Tensor, gain: Tensor, fall: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is kept of each row, in its order, followed by features at -inf up to a common length."""
    row, column = kept.nonzero(as_tuple=True)
    width = kept.sum(1)
    slot = torch.arange(len(row), device=row.device) - (width.cumsum(0) - width)[row]
    shape = (len(kept), max(1, int(width.max())) if len(kept) else 1)
    gain, fall = (
        values.new_full(shape, -torch.inf).index_put_((row, slot), values[row, column]) for values in (gain, fall)
    )
    return place.new_zeros(shape).index_put_((row, slot), place[row, column]), gain, fall


def _promising(gain: Tensor, fall: Tensor) -> Tensor:
    """Return which features (N, D) are not beaten in both by the two whose lower slope is highest."""
    strong = torch.minimum(gain, fall).topk(min(2, gain.shape[1]), 1).indices
    return (gain >= gain.gather(1, strong).amin(1, keepdim=True)) | (
        fall >= fall.gather(1, strong).amin(1, keepdim=True)
    )


def _before(values: Tensor) -> Tensor:
    """Return what stands one place earlier, -inf at the first."""
    return torch.cat([values.new_full((len(values), 1), -torch.inf), values[:, :-1]], 1)


def _candidates(gain: Tensor, fall: Tensor) -> Tensor:
    """Return which features (N, D) fewer than two others beat in both; those at -inf are none.

    Ranked by gain, earlier features win ties; a feature is out if two above it fall at least as much. Where
    gains tie this may keep a few too many, never one too few.
    """
    order = gain.argsort(dim=1, descending=True, stable=True)
    ranked = fall.gather(1, order)
    second = torch.minimum(ranked, _before(ranked.cummax(1).values)).cummax(1).values
    return torch.zeros_like(gain, dtype=torch.bool).scatter_(1, order, ranked > _before(second))


def _groups(width: Tensor) -> Iterator[Tensor]:
    """Yield the images to be searched together: those with few candidates, then each of the others."""
    few = width <= _WIDE
    if bool(few.any()):
        yield torch.nonzero(few)[:, 0]
    yield from torch.nonzero(~few)


def _search(gain: Tensor, fall: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best pair of places (N, 2), the first of equals, and whether there is one: all pairs of (N, M)."""
    n, m = gain.shape
    best = gain.new_full((n,), -1.0)
    pairs = torch.zeros(n, 2, dtype=torch.int64, device=gain.device)
    first = 0
    while first < m - 1:
        last = min(m - 1, first + max(1, _CELLS // (n * (m - first))))
        alpha = gain[:, first:last, None] + gain[:, None, first + 1 :]
        fallen = fall[:, first:last, None] + fall[:, None, first + 1 :]
        apart = torch.ones(alpha.shape[1:], dtype=torch.bool, device=gain.device).triu()
        scores = torch.where((alpha > 0) & (fallen > 0) & apart, alpha * fallen, -1.0)
        score, cell = scores.flatten(1).max(1)
        here = torch.stack([first + cell // (m - 1 - first), first + 1 + cell % (m - 1 - first)], 1)
        better = score > best
        best, pairs = torch.where(better, score, best), torch.where(better[:, None], here, pairs)
        first = last
    return pairs, best >= 0
