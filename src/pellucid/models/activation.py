"""The activations that every network offers."""

from typing import Literal

from torch import nn

Activation = Literal["relu", "silu", "gelu", "softplus"]
BETA = 10.0


def activation_layer(name: Activation) -> nn.Module:
    """Return a layer that applies an activation to each number.

    relu max(x, 0); silu x / (1 + exp(-x)); gelu x Phi(x), exact; softplus log(1 + exp(beta x)) / beta with beta = 10,
    which stays within log(2) / 10 of ReLU. The smooth ones have curvature: second derivatives of the loss in the
    image, and gradients through maps, do not vanish inside a layer.

    Source: softplus in place of ReLU, and what beta does to maps: Dombrowski et al. 2019.

    >>> import torch
    >>> float(activation_layer("softplus")(torch.zeros(1)))  # log(2) / 10
    0.06931471824645996
    """
    layers: dict[Activation, nn.Module] = {
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
        "gelu": nn.GELU(),
        "softplus": nn.Softplus(beta=BETA),
    }
    return layers[name]
