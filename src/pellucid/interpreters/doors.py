"""The outer door that all interpreters share: checked images, a frozen model, then the method's own maps."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from pellucid.guard import check_images, check_labels, reading
from pellucid.rng import Stream


class Doors(ABC):
    """An interpreter with two doors: the call checks and freezes, `maps` takes any points of a model that is frozen.

    differentiable: create_graph gives maps with a graph, or is refused; needs_relu: networks without one are refused.
    """

    differentiable: ClassVar[bool] = True
    needs_relu: ClassVar[bool] = False

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of images, checked, of a model that is left as it was."""
        x = check_images(x)
        target = check_labels(target, len(x), what="targets")
        with reading(model, create_graph):
            return self.maps(model, x, target, rng=rng, create_graph=create_graph)

    @abstractmethod
    def maps(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        *,
        rng: Stream | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Return the maps of any points, such as noisy images; the caller froze the model."""
