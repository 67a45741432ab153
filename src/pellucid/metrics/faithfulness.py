"""Whether the network uses what a map points to: pixels are taken away, or given, in the order of the map."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, check_logits, frozen
from pellucid.interpreters.heatmap import reduce_channels
from pellucid.maths.blur import gaussian_blur
from pellucid.metrics.map_evidence import at_size, check_maps

Fill = Literal["black", "mean", "blurred"]
Order = Literal["signed", "magnitude"]
Score = Literal["probability", "logit"]
Unit = Literal["pixel", "value"]

_BLUR = 5.0  # pixels, Petsiuk et al. 2018


class FaithfulnessCurve(NamedTuple):
    """Scores (N, steps+1) from none to all pixels changed, the area under them (N,), and the share changed (steps+1,).

    All float64.
    """

    curve: Tensor
    area: Tensor
    share: Tensor


def deletion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    maps: Tensor,
    *,
    steps: int | None = None,
    pixels_per_step: int | None = None,
    fill: Fill | Tensor = "black",
    order: Order = "signed",
    score: Score = "probability",
    unit: Unit = "pixel",
    batch_size: int = 100,
) -> FaithfulnessCurve:
    """Return how a class's score falls while the pixels are deleted, the most important first; lower is better.

    curve_{n,s} = s_y(x_n with the k_s pixels of largest map value replaced by the fill), k_0 = 0, the last k_s = all;
    area = int_0^1 curve d(k/D) by trapezoids. Compare it with the area of a map of random numbers.

    x (N, C, H, W) in [0, 1], y (N,) the classes that are scored, maps (N, h, w) or (N, C, h, w), resized bilinearly
    where they are smaller than the image -> curve (N, steps+1) and area (N,): in [0, 1] for score="probability" (the
    softmax), any size for "logit". NaN rows for maps with NaN; ties, and so constant maps, go by lowest index.
    steps: pixels in so many equal parts (the default: H); pixels_per_step: so many each (the last step takes the rest).
    fill: "black" (0), "mean" (of each image and channel), "blurred" (Gaussian, 5 pixels), or a tensor of colours or
    images that broadcasts to x. order "magnitude" ranks what speaks against the class as high as what speaks for it.
    unit "value": the channels of a pixel are deleted one by one, each by its own map value (maps of the shape of x).
    batch_size: changed images per forward. The network is left as it was found.
    Raises InputError for images, labels, maps, fills and steps that are not so.
    Source: Petsiuk et al. 2018, algorithm 1 and section 4.2; Bach et al. 2015 (pixel flipping); with unit="value" and
    pixels_per_step=features_in_step curve[:, 1:] is that of Quantus PixelFlipping. Deviations: Petsiuk et al.
    delete 224 pixels of 50,176 a step, and to zero after normalisation, which is the data's mean colour.

    >>> x = torch.tensor([[[[0.9, 0.1]]]])
    >>> network = nn.Flatten()  # the logits are the pixels
    >>> deletion(network, x, torch.tensor([0]), x[:, 0], pixels_per_step=1, score="logit").curve
    tensor([[0.9000, 0.0000, 0.0000]], dtype=torch.float64)
    """
    x = check_images(x).detach()
    y = check_labels(y, len(x), single=True)
    path = _path(x, maps, order, unit, steps, pixels_per_step)
    return _walk(model, x, _filled(x, fill), y, path, score, batch_size)


def insertion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    maps: Tensor,
    *,
    steps: int | None = None,
    pixels_per_step: int | None = None,
    fill: Fill | Tensor = "blurred",
    order: Order = "signed",
    score: Score = "probability",
    unit: Unit = "pixel",
    batch_size: int = 100,
) -> FaithfulnessCurve:
    """Return how a class's score rises while pixels are put into the fill, the most important first; higher is better.

    curve_{n,s} = s_y(fill_n with the k_s pixels of largest map value taken from x_n); all else as in `deletion`, but
    that the canvas is the blurred image by default. Source: Petsiuk et al. 2018, section 4.2. Deviations: Petsiuk et
    al. cut the Gaussian at 5 pixels and pad with zeros; here it is cut at 15 and edges are mirrored.

    >>> x = torch.tensor([[[[0.9, 0.1]]]])
    >>> network = nn.Flatten()  # the logits are the pixels
    >>> insertion(network, x, torch.tensor([0]), x[:, 0], steps=2, fill="black", score="logit").curve
    tensor([[0.0000, 0.9000, 0.9000]], dtype=torch.float64)
    """
    x = check_images(x).detach()
    y = check_labels(y, len(x), single=True)
    path = _path(x, maps, order, unit, steps, pixels_per_step)
    return _walk(model, _filled(x, fill), x, y, path, score, batch_size)


class _Path(NamedTuple):
    """The place in the order of every pixel or value (N, 1 or C, H, W), -1 without one; how many go at each step."""

    ranks: Tensor
    counts: Tensor


def _path(x: Tensor, maps: Tensor, order: Order, unit: Unit, steps: int | None, pixels_per_step: int | None) -> _Path:
    if order not in get_args(Order) or unit not in get_args(Unit):
        raise InputError(
            f"order must be one of {', '.join(get_args(Order))} and unit one of {', '.join(get_args(Unit))}; "
            f"got {order!r} and {unit!r}"
        )
    if len(check_maps(maps)) != len(x):
        raise InputError(f"there must be one map per image ({len(x)} here); got {len(maps)}")
    wide = maps.detach().to(x.device).double()
    if unit == "value":
        if maps.shape != x.shape:
            raise InputError(f"unit=value needs maps of the images' shape {tuple(x.shape)}; got {tuple(maps.shape)}")
        ranked = wide.abs() if order == "magnitude" else wide
    else:
        reduced = reduce_channels(wide, "sum" if order == "signed" else "abs_sum")
        size = (x.shape[2], x.shape[3])
        ranked = at_size(reduced.abs() if order == "magnitude" else reduced, size)[:, None]
    flat = ranked.flatten(1)
    places = torch.sort(flat, dim=1, descending=True, stable=True).indices
    ranks = torch.empty_like(places).scatter_(1, places, torch.arange(flat.shape[1], device=x.device).expand_as(places))
    ranks = torch.where(flat.isnan().any(1, keepdim=True), -1, ranks)
    return _Path(ranks.view_as(ranked), _counts(flat.shape[1], x.shape[2], steps, pixels_per_step, x.device))


def _counts(total: int, height: int, steps: int | None, pixels_per_step: int | None, device: torch.device) -> Tensor:
    if steps is not None and pixels_per_step is not None:
        raise InputError("give steps or pixels_per_step, not both")
    if pixels_per_step is not None:
        if pixels_per_step < 1:
            raise InputError(f"pixels_per_step must be at least 1; got {pixels_per_step}")
        parts = -(-total // pixels_per_step)
        return (torch.arange(parts + 1, device=device) * pixels_per_step).clamp_max(total)
    steps = height if steps is None else steps
    if not 1 <= steps <= total:
        raise InputError(f"steps must be 1..{total}, the number of pixels or values; got {steps}")
    return torch.arange(steps + 1, device=device) * total // steps


def _filled(x: Tensor, fill: Fill | Tensor) -> Tensor:
    """Return what pixels are replaced by, in the shape of x."""
    if isinstance(fill, Tensor):
        try:
            canvas = fill.detach().to(x).broadcast_to(x.shape)
        except RuntimeError:
            raise InputError(f"the fill {tuple(fill.shape)} does not broadcast to images {tuple(x.shape)}") from None
        return check_images(canvas)
    if fill not in get_args(Fill):
        raise InputError(f"fill must be a tensor or one of {', '.join(get_args(Fill))}; got {fill!r}")
    if fill == "blurred":
        return gaussian_blur(x, _BLUR) if len(x) else x
    return torch.zeros_like(x) if fill == "black" else x.mean((2, 3), keepdim=True).expand_as(x)


def _walk(
    model: nn.Module, start: Tensor, end: Tensor, y: Tensor, path: _Path, score: Score, batch_size: int
) -> FaithfulnessCurve:
    """Score all images at all steps from start to end, `batch_size` of them in one forward."""
    if score not in get_args(Score):
        raise InputError(f"score must be one of {', '.join(get_args(Score))}; got {score!r}")
    ranks, counts = path
    values = torch.full((len(start) * len(counts),), torch.nan, dtype=torch.float64, device=start.device)
    with frozen(model), torch.no_grad():
        for pairs in batches(torch.arange(len(values), device=start.device), batch_size):
            rows, steps = pairs // len(counts), pairs % len(counts)
            points = torch.where(ranks[rows] < counts[steps].view(-1, 1, 1, 1), end[rows], start[rows])
            logits = check_logits(model(points), points).double()
            outputs = logits.softmax(1) if score == "probability" else logits
            values[pairs] = outputs.gather(1, check_labels(y[rows], len(rows), logits.shape[1])[:, None])[:, 0]
    curve = values.view(len(start), len(counts))
    curve = torch.where(ranks.flatten(1).amin(1, keepdim=True) < 0, torch.nan, curve)
    share = counts.double() / counts[-1]
    return FaithfulnessCurve(curve, torch.trapezoid(curve, share, dim=1), share)
