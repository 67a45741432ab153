"""Which classes of an image are explained."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.guard import check_labels
from pellucid.spec import echo

RULES = ("true", "predicted", "runner_up", "least_likely")
"""Words for a class that depends on the image; the last three speak of the clean image's prediction."""


def targets_of(
    scores: Tensor, classes: Sequence[str | int], labels: Tensor | None = None, names: Sequence[str] = ()
) -> Tensor:
    """Return the classes to explain, image by image.

    scores (N, K), logits (probabilities underflow, and then order nothing); each of M `classes` is one of
    "true": the label; "predicted", "runner_up", "least_likely": the class of the highest, second highest, lowest
    score; the name of a class, one of `names`; or its number, 0 to K - 1. A name that is also a number is a name.
    Returns int64 (N, M). Raises InputError for classes that are not there and for "true" without labels.

    >>> targets_of(torch.tensor([[0.1, 0.7, 0.2]]), ("predicted", "runner_up", "cat", 0), names=("dog", "fox", "cat"))
    tensor([[1, 2, 2, 0]])
    """
    if not classes:
        raise InputError("at least one class has to be explained, such as 'predicted'")
    chosen = [_column(scores, str(word), labels, names) for word in classes]
    return torch.stack(chosen, 1)


def _column(scores: Tensor, word: str, labels: Tensor | None, names: Sequence[str]) -> Tensor:
    n, k = scores.shape
    if word == "true":
        if labels is None:
            raise InputError("the true class of images without labels is not known: explain 'predicted' instead")
        return check_labels(labels, n, k, single=True).to(scores.device)
    if word in RULES:
        if k < 2 and word == "runner_up":
            raise InputError("a network of one class has no runner-up")
        if word == "least_likely":
            return scores.argmin(1)
        return scores.topk(1 + (word == "runner_up"), 1).indices[:, -1]
    number = list(names).index(word) if word in names else int(word) if word.isascii() and word.isdigit() else k
    if number >= k:
        known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else f"numbers from 0 to {k - 1}"
        raise InputError(f"there is no class {echo(word)}; name one of {', '.join(RULES)}, or of the classes: {known}")
    return torch.full((n,), number, device=scores.device)


def numbered(classes: int) -> tuple[str, ...]:
    """Return names for classes that have none: their numbers."""
    return tuple(str(number) for number in range(classes))
