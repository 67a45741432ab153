"""The input gradient of a score."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.guard import check_images, check_labels, check_logits, reading, recording
from pellucid.maths.losses import certainty_entropy, log_probability
from pellucid.maths.passes import gradient
from pellucid.rng import Stream
from pellucid.spec import register

Score = Literal["logit", "log_probability", "cross_entropy", "certainty"]


def _score(score: Score, logits: Tensor, target: Tensor) -> Tensor:
    if score == "logit":
        return logits.gather(1, target[:, None])[:, 0]
    if score == "certainty":
        return -logits.shape[1] * certainty_entropy(logits)
    own = log_probability(logits, target)
    return own if score == "log_probability" else -own


@register("interpreter", "gradient")
@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The gradient of a score with respect to the image.

    I(x, c) = d s_c(x) / dx, with s_c one of
    logit: f_c (Boopathy et al. 2020, section 2); log_probability: log p_c (Zhang & Zhu 2019, equation 2);
    cross_entropy: H(c, yhat) = -log p_c (Ross & Doshi-Velez 2018, equation 2);
    certainty: sum_k log p_k = -K H(1/K, yhat), whatever the target (Ross & Doshi-Velez 2018, Figure 6).

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, C, H, W), signed, unscaled; target (N, M) -> (N, M, C, H, W)
    from one forward and M backward passes. Raises InputError for images outside [0, 1] and labels out of range.
    Source: Simonyan et al. 2014; the equations above. Deviations: none (the papers sum over a batch in eval
    mode, which gives per-example maps).
    """

    score: Score = "logit"

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
            leaf = x if create_graph and x.requires_grad else x.detach().requires_grad_(True)
            logits = check_logits(model(leaf), leaf)
            columns = check_labels(target, len(x), logits.shape[1], "targets")
            maps = [
                gradient(_score(self.score, logits, column), leaf, create_graph, retain_graph=True)
                for column in (columns if columns.ndim == 2 else columns[:, None]).unbind(1)
            ]
        stacked = torch.stack(maps, 1) if target.ndim == 2 else maps[0]
        return stacked if create_graph else stacked.detach()
