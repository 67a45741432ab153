"""What tests of penalties on derivatives share: a smooth network, images, and derivatives one image at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.rng import Stream, derive

BATCH, PIXELS = 6, 12


def filled(network: nn.Module, gain: float = 1.0) -> nn.Module:
    with torch.no_grad():
        for name, p in network.named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(gain * Stream(derive(3, name)).normal(like, tuple(p.shape))[0])
    return network


def smooth(classes: int = 3) -> nn.Sequential:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 7), nn.Tanh(), nn.Linear(7, classes)).double()
    return filled(layers, gain=0.5)


def tied(classes: int = 3) -> nn.Sequential:
    """A network whose images depend on each other in train mode, through a layer that refuses batches of one."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, classes))
    return filled(layers.double(), gain=0.5).train()


def forgetful() -> nn.Sequential:
    """A network with dropout, in train mode."""
    layers = smooth()
    return layers.insert(1, nn.Dropout(0.5)).train()


def pictures(n: int = BATCH) -> Tensor:
    return Stream(4).uniform(torch.empty(n, 0, dtype=torch.float64), (1, 3, 4))


def labels(n: int = BATCH) -> Tensor:
    return torch.arange(n) % 3


def each(derivative: Callable[..., Callable[..., Tensor]], function: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Return a derivative of function(image) -> tensor at every image, the axes of the image flattened."""
    found = torch.stack([derivative(function)(image).detach() for image in x])
    return found.flatten(-3)


def jacobians(network: nn.Module, x: Tensor) -> Tensor:
    """Return the Jacobians of the logits, (N, K, D)."""
    return each(torch.func.jacrev, lambda image: network(image[None])[0], x)


def weight_gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True))
