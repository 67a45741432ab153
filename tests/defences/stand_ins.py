"""What tests of defences with attacks inside share: a tiny network with a head, and an attack that hands in images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pellucid.attacks import PGD
from pellucid.models import SmallCNN
from pellucid.models.classifier import Classifier
from pellucid.protocols import Context
from pellucid.rng import Stream

from .derivatives import filled

N, CLASSES = 4, 3
X = 0.2 + 0.6 * Stream(4).uniform(torch.empty(N, 0, dtype=torch.float64), (1, 7, 6))
Y = torch.tensor([2, 0, 1, 1])


def tiny(activation: str = "softplus") -> Classifier:
    """A network whose maps are 2x2, not square only by accident, and whose head is declared."""
    network = SmallCNN(filters=(2, 3, 4), activation=activation).build(1, (7, 6), CLASSES).double()
    return filled(network, gain=0.4)  # type: ignore[return-value]


def shifted(x: Tensor, size: float = 0.15) -> Tensor:
    """Return the images changed by up to `size`, everywhere by something else."""
    shift = 2 * Stream(9).uniform(torch.empty(len(x), 0, dtype=torch.float64), tuple(x.shape[1:])) - 1
    return (x.detach() + size * shift.to(x)).clamp(0, 1)


@dataclass(frozen=True)
class Handed:
    """Stands in for an attack: hands in images, and keeps what it was handed; see `asked` and `climbed`."""

    eps: float = 0.15
    changed: Callable[[Tensor], Tensor] = shifted
    probe: Callable[[Callable[..., Tensor], Tensor], None] | None = None
    asked: list[tuple[Tensor, Tensor, Stream]] = field(default_factory=list)
    climbed: list[Tensor] = field(default_factory=list)
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "stand-in")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: Any = None, **_: Any) -> Tensor:
        self.asked.append((x, y, rng))
        return self.changed(x)

    def maximise(self, objective: Callable[..., Tensor], x: Tensor, *, rng: Any = None) -> Tensor:
        self.climbed.append(x)
        if self.probe is not None:
            self.probe(objective, x)
        return self.changed(x)

    @property
    def silent(self) -> bool:
        return not self.asked and not self.climbed


def here(step: int = 3, progress: float = 0.5, n: int = N, **more: Any) -> Context:
    return Context(progress=progress, step=step, seed=5, positions=torch.arange(n) + 20, **more)


def seen(network: nn.Module) -> list[Tensor]:
    """Return a list that fills with the images the network is asked about."""
    images: list[Tensor] = []
    network.register_forward_pre_hook(lambda module, given: images.append(given[0].detach().clone()))
    return images


SHORT = PGD(eps=0.1, steps=3, step_size=0.05)
