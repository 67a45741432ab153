"""Guided backpropagation where GradCAM sees the class."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pellucid.guard import recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.grad_cam import GradCAM, LayoutChoice, check_choice
from pellucid.interpreters.guided_backprop import GuidedBackprop
from pellucid.interpreters.heatmap import resize
from pellucid.interpreters.layer import Site
from pellucid.rng import Stream
from pellucid.spec import register


@register("interpreter", "guided_grad_cam")
@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(Doors):
    """Guided backpropagation, pixel by pixel times GradCAM resized to the image.

    I(x, c) = I_guided(x, c) * up(I_gradcam(x, c)), up bilinear, the same factor for all channels.

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, C, H, W), signed; target (N, M) -> (N, M, C, H, W) from two
    forwards. layer, layout and `site` are those of `GradCAM`, which is taken with its ReLU. Zero wherever GradCAM
    is. Raises InputError where either method does.
    Source: Selvaraju et al. 2017, section 3.2. Deviations: none.
    """

    layer: str | None = None
    layout: LayoutChoice = "auto"

    needs_relu: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse a layout of no layer."""
        check_choice(self)

    def site(self, model: nn.Module, x: Tensor) -> Site:
        """Return which layer is looked at and how its output lies over images x."""
        return self._coarse.site(model, x)

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
        fine = GuidedBackprop().maps(model, x, target, create_graph=create_graph)
        coarse = self._coarse.maps(model, x, target, create_graph=create_graph)
        with recording(create_graph):
            wide = resize(coarse.flatten(0, target.ndim - 1), (x.shape[2], x.shape[3]))
            return fine * wide.view(*target.shape, 1, *x.shape[2:])

    @property
    def _coarse(self) -> GradCAM:
        return GradCAM(layer=self.layer, layout=self.layout)
