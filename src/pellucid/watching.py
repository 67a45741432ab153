"""What is measured of a network while it trains: the figures of its history."""

import torch
from torch import Tensor

from pellucid.guard import frozen
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


def figures(network: Classifier, x: Tensor, y: Tensor, attack: Attack | None, seed: int) -> dict[str, float]:
    """Return what validation images x (N, C, H, W) with labels y say of the network, in eval mode.

    validation_accuracy, validation_cross_entropy, the mean squared norm of the input gradient of log p_y
    (validation_squared_gradient), of the sum of the other log p_k (.._others) and of all log p_k (.._all), and, with an
    attack, attacked_accuracy. Nothing where there are no images.
    Source: the quantities of Ross & Doshi-Velez 2018, Figures 7 and 8.
    """
    if not len(y):
        return {}
    with frozen(network):
        leaf = x.clone().requires_grad_(True)
        logits = network(leaf)
        logs = torch.log_softmax(logits.float() if logits.dtype.itemsize < 4 else logits, 1)
        own = logs.gather(1, y[:, None])[:, 0]
        whole = logs.sum(1)
        slopes = [gradient(values, leaf, retain_graph=True).flatten(1) for values in (own, whole)]
    squares = [slope.square().sum(1).mean() for slope in (slopes[0], slopes[1] - slopes[0], slopes[1])]
    found = {
        "validation_accuracy": right(logits, y),
        "validation_cross_entropy": float(-own.detach().mean()),
        "validation_squared_gradient": float(squares[0]),
        "validation_squared_gradient_others": float(squares[1]),
        "validation_squared_gradient_all": float(squares[2]),
    }
    return found | ({} if attack is None else {"attacked_accuracy": attacked(network, x, y, attack, seed)})


def batch_figures(network: Classifier, x: Tensor, y: Tensor, attack: Attack | None, seed: int) -> dict[str, float]:
    """Return the accuracy of the network on the batch that it was just moved by, and under the attack, in eval mode."""
    with frozen(network), torch.no_grad():
        found = {"training_accuracy": right(network(x), y)}
    return found | ({} if attack is None else {"attacked_training_accuracy": attacked(network, x, y, attack, seed)})


def attacked(network: Classifier, x: Tensor, y: Tensor, attack: Attack, seed: int) -> float:
    """Return the accuracy under the attack's examples, whose random numbers are the same every time."""
    moved = attack(network, x, y, rng=Stream(derive(seed, "watched")))
    with frozen(network), torch.no_grad():
        return right(network(moved), y)


def right(logits: Tensor, y: Tensor) -> float:
    """Return the share of images that are classified right."""
    return float((logits.detach().argmax(1) == y).float().mean())
