"""Class activation maps weighted by gradients."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from pellucid.errors import SpecError
from pellucid.guard import check_images, frozen, recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.layer import Reading, Site, read
from pellucid.interpreters.scores import per_target, score_of
from pellucid.rng import Stream
from pellucid.spec import Flag, register, title

LayoutChoice = Literal["auto", "channels_first", "channels_last", "tokens"]


@register("interpreter", "grad_cam")
@dataclass(frozen=True, kw_only=True)
class GradCAM(Doors):
    """The last feature map, weighted by the mean gradient of a class's score: CAM for any network.

    I(x, c) = relu(sum_k w_k A_k), w_k = (1/u) sum_i d f_c / d A_{k,i}, A (D, h, w) the feature map, u = h w, f logits.
    Without relu, and where a linear head follows the pooled map, it is CAM / u.

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, h, w) at the resolution of the feature map (`heatmap` resizes for
    display), >= 0 with relu; target (N, M) -> (N, M, h, w) from one forward and M backwards, which go no further
    down than the map. relu=False keeps what speaks against the class.
    layer names the layer to look at, as `named_modules` lists it. None is the network's declared feature map; of a
    foreign network the one given to `adapt`, else the last layer that is a map over the image, on which the scores
    depend, and through which alone they depend on the image (in a vision transformer with a class token: the last
    block but one). layout says how a named layer's output lies: channels first (N, D, h, w), last (N, h, w, D; Swin)
    or tokens (N, prefix + h w, D; ViT); auto finds out by the proportions of the image. `site` tells what was
    decided; so does a line of the logger "pellucid.interpreters" where anything had to be.
    Raises InputError for layers that are not there or are no map over the image, naming some that are.
    Source: Selvaraju et al. 2017, equations 1 and 2. Deviations: none.
    """

    layer: str | None = None
    relu: Flag = True
    layout: LayoutChoice = "auto"

    def check(self) -> None:
        """Refuse a layout of no layer."""
        check_choice(self)

    def site(self, model: nn.Module, x: Tensor) -> Site:
        """Return which layer is looked at and how its output lies over images x."""
        with frozen(model), recording():
            return look(model, check_images(x)[:1], self.layer, self.layout).site

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
        with recording():
            seen = look(model, x, self.layer, self.layout, create_graph)

            def mapped(column: Tensor, more: bool) -> Tensor:
                score = score_of("logit", seen.logits, column)
                slope = seen.slope(score, create_graph, more)
                return weighted(slope.mean((2, 3), keepdim=True), seen.features, self.relu)

            maps = per_target(seen.logits, target, mapped)
        return maps if create_graph else maps.detach()


def check_choice(method: Any) -> None:
    """Refuse a layout where no layer is named: it is of the layer that it is said."""
    if method.layout != "auto" and method.layer is None:
        raise SpecError(f"{title(type(method))}.layout says how a layer's output lies: name the layer too")


def weighted(weights: Tensor, features: Tensor, relu: bool) -> Tensor:
    """Return sum_k w_k A_k, or its positive part: weights (N, D, 1, 1), features (N, D, h, w) -> (N, h, w)."""
    maps = (weights * features).sum(1)
    return maps.clamp(min=0) if relu else maps


def look(model: nn.Module, x: Tensor, layer: str | None, layout: LayoutChoice, create_graph: bool = False) -> Reading:
    """Run the network once and return what its layer gave; autograd must be recording."""
    return read(model, x, layer, None if layout == "auto" else layout, create_graph)
