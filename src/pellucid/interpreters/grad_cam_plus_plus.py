"""Class activation maps weighted by gradients, position by position."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.errors import InputError, SpecError
from pellucid.guard import check_images, frozen, recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.grad_cam import LayoutChoice, check_choice, look, weighted
from pellucid.interpreters.layer import Site
from pellucid.interpreters.scores import per_target, score_of
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream
from pellucid.spec import Flag, register


@register("interpreter", "grad_cam_plus_plus")
@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(Doors):
    """The last feature map, weighted by the positive gradients, each position by its own coefficient.

    I(x, c) = relu(sum_k w_k A_k), w_k = sum_i alpha_{k,i} relu(dY / dA_{k,i}), Y = exp(f_c),
    alpha_{k,i} = g^2 / (2 g^2 + (sum_j A_{k,j}) g^3), g = d f_c / d A_{k,i} (0 where g is 0). For a linear head W on
    the pooled map of u positions: w_k = exp(f_c) relu(W_ck) / (2 + (W_ck / u) sum_j A_{k,j}).

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, h, w) at the resolution of the feature map; target (N, M) ->
    (N, M, h, w) from one forward and M backwards. relu, layer, layout, `site` and refusals are those of `GradCAM`.
    form="shortcut" is what the code of Boopathy et al. computes instead, for networks with a declared linear head:
    sum_k relu(W_ck) A_k, CAM with the negative weights of the head at 0.
    Source: Chattopadhay et al. 2018, equations 10, 14 and 19; form="shortcut": Boopathy et al. 2020, authors' code.
    Deviations: the coefficients hold for Y = exp(f_c) of piecewise linear f_c, as in the paper (higher derivatives
    of f_c are not taken). exp(f_c), a factor of the whole map, is held below the largest number of the dtype.
    """

    form: Literal["exact", "shortcut"] = "exact"
    layer: str | None = None
    relu: Flag = True
    layout: LayoutChoice = "auto"

    def check(self) -> None:
        """Refuse a layout of no layer, and a layer for a form that does not look at one."""
        check_choice(self)
        if self.form == "shortcut" and self.layer is not None:
            raise SpecError("interpreter grad_cam_plus_plus with form=shortcut reads the declared map: name no layer")

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
        if self.form == "shortcut":
            return self._shortcut(model, x, target, create_graph)
        with recording():
            seen = look(model, x, self.layer, self.layout, create_graph)
            total = seen.features.sum((2, 3), keepdim=True)

            def mapped(column: Tensor, more: bool) -> Tensor:
                score = score_of("logit", seen.logits, column)
                slope = seen.slope(score, create_graph, more)
                below = 2 + total * slope  # alpha divided by g^2
                alpha = torch.where(slope != 0, 1 / torch.where(below != 0, below, 1), 0)
                grown = score.clamp(max=_most(score.dtype)).exp().view(-1, 1, 1, 1)
                weights = (alpha * slope.clamp(min=0)).sum((2, 3), keepdim=True) * grown
                return weighted(weights, seen.features, self.relu)

            maps = per_target(seen.logits, target, mapped)
        return maps if create_graph else maps.detach()

    def _shortcut(self, model: nn.Module, x: Tensor, target: Tensor, create_graph: bool) -> Tensor:
        if not isinstance(model, Classifier) or model.head is None:
            raise InputError(
                "grad_cam_plus_plus with form=shortcut needs a network that declares a linear head on pooled features; "
                f"{type(model).__name__} does not (form=exact does not need one)"
            )
        weight = model.head.weight.clamp(min=0)
        with recording(create_graph):
            features = model.feature_map(x)
            logits = model.head(features.mean((2, 3)))
            maps = per_target(
                logits, target, lambda column, _: weighted(weight[column][:, :, None, None], features, self.relu)
            )
        return maps if create_graph else maps.detach()


def _most(dtype: torch.dtype) -> float:
    """Return the largest exponent whose exponential, times maps of ordinary size, is still a number."""
    return 0.9 * math.log(torch.finfo(dtype).max)
