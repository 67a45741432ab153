"""What is measured of a network while it trains: the figures of its history."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.guard import frozen
from pellucid.maths.losses import wide
from pellucid.maths.passes import gradient
from pellucid.models.classifier import Classifier
from pellucid.protocols import Attack
from pellucid.rng import Stream, derive

WATCHED = 512  # images of the validation part, the first ones, as in Ross & Doshi-Velez's Figures 7 and 8


FIGURES = (
    "validation_accuracy",
    "validation_cross_entropy",
    "validation_squared_gradient",
    "validation_squared_gradient_others",
    "validation_squared_gradient_all",
    "training_accuracy",
)
UNDER_ATTACK = ("attacked_accuracy", "attacked_training_accuracy")


def figures(
    network: Classifier, x: Tensor, y: Tensor, attack: Attack | None, seed: int, size: int = WATCHED
) -> dict[str, float]:
    """Return what validation images x (N, C, H, W) with labels y say of the network, in eval mode.

    validation_accuracy, validation_cross_entropy, the mean squared norm of the input gradient of log p_y
    (validation_squared_gradient), of the sum of the other log p_k (.._others) and of all log p_k (.._all), and, with an
    attack, attacked_accuracy. Nothing where there are no images. At most `size` images are in memory at a time.
    Source: the quantities of Ross & Doshi-Velez 2018, Figures 7 and 8.
    """

    def measure(x: Tensor, y: Tensor, rows: Tensor) -> dict[str, float]:
        found = slopes(network, x, y)
        return found if attack is None else found | {"attacked_accuracy": attacked(network, x, y, attack, seed, rows)}

    return _mean(measure, x, y, size)


def batch_figures(
    network: Classifier, x: Tensor, y: Tensor, attack: Attack | None, seed: int, size: int = WATCHED
) -> dict[str, float]:
    """Return the accuracy of the network on the batch that it was just moved by, and under the attack, in eval mode."""

    def measure(x: Tensor, y: Tensor, rows: Tensor) -> dict[str, float]:
        with frozen(network), torch.no_grad():
            found = {"training_accuracy": right(network(x), y)}
        if attack is None:
            return found
        return found | {"attacked_training_accuracy": attacked(network, x, y, attack, seed, rows)}

    return _mean(measure, x, y, size)


def slopes(network: Classifier, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return accuracy, cross-entropy and the squared input gradients of log-probabilities."""
    with frozen(network):
        leaf = x.clone().requires_grad_(True)
        logits = network(leaf)
        logs = torch.log_softmax(wide(logits), 1)
        own, whole = logs.gather(1, y[:, None])[:, 0], logs.sum(1)
        one, every = (gradient(values, leaf, retain_graph=True).flatten(1) for values in (own, whole))
    squares = [slope.square().sum(1).mean() for slope in (one, every - one, every)]
    return {
        "validation_accuracy": right(logits, y),
        "validation_cross_entropy": float(-own.detach().mean()),
        "validation_squared_gradient": float(squares[0]),
        "validation_squared_gradient_others": float(squares[1]),
        "validation_squared_gradient_all": float(squares[2]),
    }


def attacked(network: Classifier, x: Tensor, y: Tensor, attack: Attack, seed: int, rows: Tensor | None = None) -> float:
    """Return the accuracy under the attack's examples; the random numbers of a row are the same every time."""
    moved = attack(network, x, y, rng=Stream(derive(seed, "watched"), rows))
    with frozen(network), torch.no_grad():
        return right(network(moved), y)


def right(logits: Tensor, y: Tensor) -> float:
    """Return the share of images that are classified right."""
    return float((logits.detach().argmax(1) == y).float().mean())


def _mean(
    measure: Callable[[Tensor, Tensor, Tensor], dict[str, float]], x: Tensor, y: Tensor, size: int
) -> dict[str, float]:
    """Return the means over all images of what is measured on up to `size` of them."""
    total: dict[str, float] = {}
    for rows in torch.split(torch.arange(len(y), device=y.device), size) if len(y) else ():
        for name, value in measure(x[rows], y[rows], rows).items():
            total[name] = total.get(name, 0.0) + value * len(rows) / len(y)
    return total
