"""How far saliency maps moved: the interpretability discrepancy of Boopathy et al., on tensors."""

from typing import Literal, get_args

import torch
from torch import Tensor

from pellucid.errors import InputError

Compared = Literal["one", "two", "all"]  # the classes whose maps are compared: {y}, {y, t}, or every class
Order = Literal[1, 2]  # p of the norm
Positions = Literal["mean", "sum"]
Form = Literal["paper", "code"]  # of equation 7: as printed, with the factors 1/2, or as the authors' code has it


def compared_classes(compared: Compared, y: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the classes C of the discrepancy, (N, M): one {y}, two {y, t}, all [K].

    Raises InputError for another word.

    >>> compared_classes("two", torch.tensor([3, 0]), torch.tensor([1, 2]), classes=4)
    tensor([[3, 1],
            [0, 2]])
    """
    if compared not in get_args(Compared):
        raise InputError(f"the classes compared must be {', '.join(get_args(Compared))}; got {compared!r}")
    if compared == "one":
        return y[:, None]
    if compared == "two":
        return torch.stack([y, target], 1)
    return torch.arange(classes, device=y.device).expand(len(y), classes)


def discrepancy(
    before: Tensor,
    after: Tensor,
    p: Order = 1,
    *,
    positions: Positions = "mean",
    squared: bool = False,
) -> Tensor:
    """Return the mean distance of the maps of M classes before and after, per image; differentiable in both.

    D = (1/|C|) sum_{c in C} ||s I(x, c) - s I(x', c)||_p, p = 1 or 2, where s = 1/u for maps whose mean over
    their u positions is the score (positions="mean": CAM), and s = 1 for maps whose sum is (positions="sum":
    integrated gradients). So scaled, D bounds changes of the scores (`discrepancy_bound`).
    squared takes the square of each norm, as the authors' attack does (with positions="sum") for l2.

    before, after (N, M, ...), one map of any shape per class in C -> (N,) >= 0, in float32 at least; the slope at
    equal maps is 0. Raises InputError where the shapes differ or there is no axis of classes, and for another p or
    positions.
    Source: Boopathy et al. 2020, equation 3. Deviations: none.

    >>> before, after = torch.zeros(1, 2, 2, 2), torch.tensor([[[[0.0, 3.0], [4.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    >>> discrepancy(before, after), discrepancy(before, after, positions="sum")
    (tensor([1.]), tensor([4.]))
    """
    return _lengths(before, after, p, positions, squared).mean(1)


def _lengths(before: Tensor, after: Tensor, p: Order, positions: Positions, squared: bool = False) -> Tensor:
    """Return the norm by which the map of every class moved, or its square: (N, M, ...) -> (N, M)."""
    if before.shape != after.shape or before.ndim < 3:
        raise InputError(f"maps must be (N, M, ...) of one shape; got {tuple(before.shape)} and {tuple(after.shape)}")
    if p not in get_args(Order) or positions not in get_args(Positions):
        raise InputError(f"p must be 1 or 2 and positions mean or sum; got {p} and {positions!r}")
    moved = (after - before).flatten(2)
    moved = moved.float() if moved.dtype in (torch.float16, torch.bfloat16) else moved
    if positions == "mean":
        moved = moved / max(1, moved.shape[2])
    if p == 1:
        lengths = moved.abs().sum(2)
        return lengths.square() if squared else lengths
    return moved.square().sum(2) if squared else torch.linalg.vector_norm(moved, dim=2)


def label_free_discrepancy(
    before: Tensor,
    after: Tensor,
    y: Tensor,
    logits_after: Tensor,
    *,
    form: Form = "paper",
    p: Order = 1,
    positions: Positions = "mean",
    detach_weights: bool = False,
) -> Tensor:
    """Return how far the maps of all classes moved, the other classes weighted by what x' is taken for, per image.

    D~ = (1/2) ||s I(x, y) - s I(x', y)||_p + (1/2) sum_{i != y} w_i ||s I(x, i) - s I(x', i)||_p, w the softmax of
    f(x') over the classes other than y; s as in `discrepancy`. No target label is needed: the likeliest wrong class
    has the largest weight. Gradients flow through w too, unless detach_weights.
    form="code" leaves the factors 1/2 out, as the authors' code does (with positions="sum").

    before, after (N, K, ...), a map per class; y (N,), logits_after (N, K) of x' -> (N,) >= 0, in float32 at least;
    differentiable. Raises InputError for shapes that do not fit, for K = 1, and for another form, p or positions.
    Source: Boopathy et al. 2020, equation 7. Deviations: the range of the softmax's denominator is ambiguous there;
    here, as in the authors' code, it is over the wrong classes, so that the weights sum to 1.

    >>> before, after = torch.zeros(1, 3, 1, 2), torch.tensor([[[[2.0, 2.0]], [[4.0, 4.0]], [[0.0, 0.0]]]])
    >>> label_free_discrepancy(before, after, torch.tensor([0]), torch.zeros(1, 3))
    tensor([2.])
    """
    if logits_after.ndim != 2 or before.shape[:2] != logits_after.shape or y.shape != logits_after.shape[:1]:
        raise InputError(
            f"maps must be (N, K, ...) for logits (N, K) and labels (N,); got {tuple(before.shape)}, "
            f"{tuple(logits_after.shape)} and {tuple(y.shape)}"
        )
    if logits_after.shape[1] < 2:
        raise InputError("the discrepancy of equation 7 weighs wrong classes: at least 2 classes are needed")
    if form not in get_args(Form):
        raise InputError(f"form must be paper or code; got {form!r}")
    moved = _lengths(before, after, p, positions)
    own = torch.zeros_like(moved, dtype=torch.bool).scatter_(1, y[:, None], True)
    scores = logits_after.detach() if detach_weights else logits_after
    weights = torch.softmax(scores.to(moved.dtype).masked_fill(own, -torch.inf), 1)
    total = moved.gather(1, y[:, None])[:, 0] + (weights * moved).sum(1)
    return total / 2 if form == "paper" else total


def discrepancy_bound(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the least two-class l1 discrepancy that any x' with f_t(x') >= f_y(x') can have, per image.

    D_{2,l1}(x, x') >= (f_y(x) - f_t(x)) / 2, for maps that sum to the score up to a constant (for CAM: scaled by
    1/u, positions="mean"). With raw CAMs, u times larger, both sides are not in the same units.

    logits (N, K) of the clean images, y and target (N,) -> (N,), negative where the image already prefers the target.
    Source: Boopathy et al. 2020, Proposition 1 (equation 5).

    >>> discrepancy_bound(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), torch.tensor([1]))
    tensor([1.])
    """
    own, other = (logits.gather(1, label[:, None])[:, 0] for label in (y, target))
    return (own - other) / 2
