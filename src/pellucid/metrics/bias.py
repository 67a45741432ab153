"""Whether a network goes by shape or by texture: accuracy on images it knew untouched, and shape bias."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.metrics.statistics import Interval, bootstrap_mean, wilson

Empty = Literal["nan", "skip"]


class ShapeBias(NamedTuple):
    """The share of shape decisions among shape and texture decisions, and how many images were decided how."""

    bias: Interval
    shape: int
    texture: int
    neither: int


def accuracy_on_correct(
    clean: Tensor,
    predicted: Tensor,
    labels: Tensor,
    *,
    batch: int | None = None,
    empty: Empty = "nan",
    confidence: float = 0.95,
) -> Interval:
    """Return which share of the images that a network classifies correctly it still does after a change.

    |{n in S: predicted_n = y_n}| / |S|, S = {n: clean_n = y_n}; higher is better. Every network is its own
    reference, so that networks of different clean accuracy can be compared.

    clean, predicted, labels (N,) int64: what is predicted for the untouched and for the changed images, and the
    true classes -> three numbers in [0, 1] with the Wilson interval, NaN where no image was correct.
    batch: the mean over batches of so many images, in order, of each batch's own ratio, with a bootstrap interval
    over batches; the last batch may be smaller and counts like any other. A batch without a correct image has no
    ratio: the mean is then NaN, as in the authors' code, or goes without it (empty="skip"). Batches weigh their
    images unevenly, so the pooled share is the sound one.
    Raises InputError where the shapes differ, for a batch below 1 and other words for empty.
    Source: Zhang & Zhu 2019, section 4.2; authors' code (batch=32). Deviations: none known; the paper does not say
    that its figures are means of ratios.

    >>> import torch
    >>> clean, predicted, labels = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 0], [0, 1, 2, 0]])
    >>> round(accuracy_on_correct(clean, predicted, labels).value, 4)  # of the first three, two
    0.6667
    >>> accuracy_on_correct(clean, predicted, labels, batch=2).value  # (2/2 + 0/1) / 2
    0.5
    """
    clean, predicted, labels = _alike(clean=clean, predicted=predicted, labels=labels)
    if empty not in get_args(Empty) or (batch is not None and batch < 1):
        raise InputError(f"batch must be at least 1 and empty one of nan, skip; got {batch} and {empty!r}")
    known = clean == labels
    still = known & (predicted == labels)
    if batch is None:
        return wilson(int(still.sum()), int(known.sum()), confidence)
    counts = [(int(a.sum()), int(b.sum())) for a, b in zip(torch.split(still, batch), torch.split(known, batch))]
    ratios = [a / b for a, b in counts if b]
    if len(ratios) < len(counts) and empty == "nan":
        ratios = []
    return bootstrap_mean(ratios, confidence)


def shape_bias(
    predicted: Tensor, shape: Tensor, texture: Tensor, *, clean: Tensor | None = None, confidence: float = 0.95
) -> ShapeBias:
    """Return how often a network goes by the shape, of the images with conflicting cues that it decides by either.

    |{n: predicted_n = shape_n}| / |{n: predicted_n = shape_n or predicted_n = texture_n}|; 1 goes by shape alone,
    0 by texture alone. Neither end is good: look at how many are decided by neither, too.

    predicted, shape, texture (N,) int64, the predictions and the classes of the two cues; images whose cues agree
    say nothing and are left out -> the share with its Wilson interval, NaN where no image is decided by either cue,
    and counts. clean (N,): what is predicted for the untouched images; those that are not classified as their
    shape are then left out as well, so that a network is not judged by images it never knew.
    Raises InputError where the shapes differ.
    Source: Geirhos et al. 2019, Figure 4; they keep images that all their networks know, by shape and by texture.
    Deviation: an image is kept or left out by the network's own prediction for the untouched image of the shape.

    >>> import torch
    >>> found = shape_bias(torch.tensor([0, 0, 2, 3]), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 2, 2]))
    >>> round(found.bias.value, 4), found.shape, found.texture, found.neither
    (0.6667, 2, 1, 1)
    """
    predicted, shape, texture = _alike(predicted=predicted, shape=shape, texture=texture)
    kept = shape != texture
    if clean is not None:
        kept &= _alike(clean=clean, shape=shape)[0] == shape
    by_shape, by_texture = (int((kept & (predicted == cue)).sum()) for cue in (shape, texture))
    bias = wilson(by_shape, by_shape + by_texture, confidence)
    return ShapeBias(bias, by_shape, by_texture, int(kept.sum()) - by_shape - by_texture)


def _alike(**given: Tensor) -> list[Tensor]:
    """Return tensors (N,) on the device of the first; raise InputError unless they have one shape."""
    tensors = list(given.values())
    if tensors[0].ndim != 1 or any(values.shape != tensors[0].shape for values in tensors):
        shapes = ", ".join(str(tuple(values.shape)) for values in tensors)
        raise InputError(f"{', '.join(given)} must all be (N,); got {shapes}")
    return [values.to(tensors[0].device) for values in tensors]
