"""How far the maps of a network's classes move from one image to another."""

from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, check_logits, frozen
from pellucid.maths.discrepancy import Compared, Order, Positions, compared_classes, discrepancy, label_free_discrepancy
from pellucid.protocols import Interpreter
from pellucid.rng import Stream


def interpretation_discrepancy(
    model: nn.Module,
    interpreter: Interpreter,
    x: Tensor,
    x_after: Tensor,
    y: Tensor,
    *,
    target: Tensor | None = None,
    classes: Compared | Literal["label_free"] = "two",
    p: Order = 1,
    positions: Positions = "mean",
    rng: Stream | None = None,
    batch_size: int = 100,
) -> Tensor:
    """Return the interpretability discrepancy between images and others, such as adversarial ones; lower is stabler.

    D = (1/|C|) sum_{c in C} ||I(x, c) - I(x', c)||_p, C = {y} (one), {y, t} (two) or all classes; label_free is the
    form of equation 7, which needs no target (`maths.label_free_discrepancy`). positions="mean" divides maps by their
    number of positions: right for maps whose mean is the score (CAM); "sum" for those whose sum is (integrated
    gradients).

    x, x' (N, C, H, W) in [0, 1], y and target (N,) -> (N,) >= 0. target None is the class predicted for x', or, where
    that is y, the likeliest other. The network is left as it was. Raises InputError for images and labels that do not
    fit, and what the interpreter refuses. Source: Boopathy et al. 2020, equations 3, 4 and 7.
    """
    x, x_after = check_images(x), check_images(x_after)
    if x.shape != x_after.shape:
        raise InputError(f"both sets of images must have one shape; got {tuple(x.shape)} and {tuple(x_after.shape)}")
    y, rng = check_labels(y, len(x), single=True), rng or Stream()
    if target is not None:
        target = check_labels(target, len(x), what="target labels", single=True)
    found = [torch.zeros(0, dtype=x.dtype, device=x.device)]
    with frozen(model):
        for rows in batches(torch.arange(len(x), device=x.device), batch_size):
            with torch.no_grad():
                logits = check_logits(model(x_after[rows]), x_after[rows])
            own = check_labels(y[rows], len(rows), logits.shape[1])
            other = _other(logits, own) if target is None else check_labels(target[rows], len(rows), logits.shape[1])
            chosen = compared_classes("all" if classes == "label_free" else classes, own, other, logits.shape[1])
            before, after = (interpreter.maps(model, part[rows], chosen, rng=rng.take(rows)) for part in (x, x_after))
            if classes == "label_free":
                found.append(label_free_discrepancy(before, after, own, logits, p=p, positions=positions))
            else:
                found.append(discrepancy(before, after, p, positions=positions))
    return torch.cat(found)


def _other(logits: Tensor, y: Tensor) -> Tensor:
    """Return the likeliest class but y."""
    if logits.shape[1] < 2:
        return y
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, y[:, None], True)
    return logits.masked_fill(own, -torch.inf).argmax(1)
