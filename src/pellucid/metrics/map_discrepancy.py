"""How far the maps of a network's classes move from one image to another."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pellucid.attacks.sharing import sharing
from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, check_logits, frozen
from pellucid.maths.discrepancy import Compared, Order, Positions, compared_classes, discrepancy, label_free_discrepancy
from pellucid.protocols import Interpreter
from pellucid.rng import Stream

Classes = Literal[Compared, "label_free"]


def interpretation_discrepancy(
    model: nn.Module,
    interpreter: Interpreter,
    x: Tensor,
    x_after: Tensor,
    y: Tensor,
    *,
    target: Tensor | None = None,
    classes: Classes = "two",
    p: Order = 1,
    positions: Positions = "mean",
    rng: Stream | None = None,
    batch_size: int = 100,
) -> Tensor:
    """Return the interpretability discrepancy between images and others, such as adversarial ones; lower is stabler.

    D = (1/|C|) sum_{c in C} ||I(x, c) - I(x', c)||_p, C = {y} (one), {y, t} (two) or all classes; label_free is the
    form of equation 7 as printed, which needs no target (`maths.discrepancy.label_free_discrepancy`).
    positions="mean" divides maps by their number of positions: right for maps whose mean is the score (CAM); "sum" is
    right for those whose sum is (integrated gradients).

    x, x' (N, C, H, W) in [0, 1], y and target (N,) -> (N,) >= 0, in float32 at least. target t, which only "two" looks
    at: None is the class predicted for x', or, where that is y, the likeliest other. What an interpreter draws is the
    same for x and x'. CAM costs one forward per image, others one more for x' where its logits are needed. The
    network is left as it was. Raises InputError for images and labels that do not fit, targets that are the true
    labels, another word for classes or positions, and what the interpreter refuses.
    Source: Boopathy et al. 2020, equations 3, 4 and 7.

    >>> from pellucid.interpreters import GradientTimesInput
    >>> network = nn.Flatten()  # the logits are the pixels: each class's map holds its own, and adds up to its logit
    >>> x, x_after = torch.tensor([[[[0.75, 0.25]]]]), torch.tensor([[[[0.5, 0.5]]]])
    >>> interpretation_discrepancy(network, GradientTimesInput(), x, x_after, torch.tensor([0]), positions="sum")
    tensor([0.2500])
    """
    if classes not in get_args(Classes):
        raise InputError(f"classes must be one of {', '.join(get_args(Classes))}; got {classes!r}")
    x, x_after = check_images(x), check_images(x_after)
    if x.shape != x_after.shape:
        raise InputError(f"both sets of images must have one shape; got {tuple(x.shape)} and {tuple(x_after.shape)}")
    y, rng = check_labels(y, len(x), single=True), rng or Stream()
    if target is not None:
        target = check_labels(target, len(x), what="target labels", single=True)
        if classes == "two" and bool((target == y).any()):
            raise InputError("two classes are compared: target labels must be other than the true ones")
    found = [torch.zeros(0, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)]
    with frozen(model):
        for rows in batches(torch.arange(len(x), device=x.device), batch_size):
            network, after_x, own = sharing(model), x_after[rows], y[rows]
            logits, chosen = _chosen(network, after_x, classes, own, None if target is None else target[rows])
            # x' first: its logits are at hand, and with them its CAMs
            after, before = (interpreter.maps(network, part, chosen, rng=rng.take(rows)) for part in (after_x, x[rows]))
            if logits is not None and classes == "label_free":
                found.append(label_free_discrepancy(before, after, own, logits, p=p, positions=positions))
            else:
                found.append(discrepancy(before, after, p, positions=positions))
    return torch.cat(found)


def _chosen(
    network: nn.Module, x_after: Tensor, classes: Classes, y: Tensor, target: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Return the logits of x', where they are needed, and the classes whose maps are, (N, M)."""
    if classes == "one":
        return None, y[:, None]
    if classes == "two" and target is not None:
        return None, torch.stack([y, target], 1)
    with torch.no_grad():
        logits = check_logits(network(x_after), x_after)
    count = logits.shape[1]
    if classes == "two" and count < 2:
        raise InputError("two classes are compared, and the network has one")
    check_labels(y, len(y), count)
    return logits, compared_classes("two" if classes == "two" else "all", y, _other(logits, y), count)


def _other(logits: Tensor, y: Tensor) -> Tensor:
    """Return the likeliest class but y."""
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, y[:, None], True)
    return logits.masked_fill(own, -torch.inf).argmax(1)
