"""Class activation maps."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import check_labels, recording
from pellucid.interpreters.doors import Doors
from pellucid.maths.cam import cam
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream
from pellucid.spec import register


@register("interpreter", "cam")
@dataclass(frozen=True, kw_only=True)
class CAM(Doors):
    """The class activation map: how much each position of the last feature map adds to a logit.

    I(x, c)_i = sum_k w_k^c A_{k,i}; its mean over positions is f_c minus the head's bias.

    x (N, C, H, W) in [0, 1], target (N,) -> (N, h, w), the raw map at the resolution of the feature map (no
    ReLU, no scaling, no up-sampling: `heatmap` does that for display); target (N, M) -> (N, M, h, w) from one
    forward. Raises InputError for networks that declare no linear head on pooled features.
    Source: Zhou et al. 2016; Boopathy et al. 2020, equation 1. Deviations: none.
    """

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
        if not isinstance(model, Classifier) or model.head is None:
            raise InputError(
                f"CAM needs a network that declares a linear head on pooled features; {type(model).__name__} does not "
                "(adapt(module, feature_layer=..., head=...) declares one for a foreign network)"
            )
        target = check_labels(target, len(x), model.head.out_features, "targets")
        with recording(create_graph):
            maps, _ = cam(model.feature_map(x), model.head)
        rows = torch.arange(len(x), device=x.device)
        chosen = maps[rows, target] if target.ndim == 1 else maps[rows[:, None], target]
        return chosen if create_graph else chosen.detach()
