"""The input gradient of a score."""

from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.guard import check_logits, recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.scores import Score, per_target, score_of
from pellucid.maths.passes import gradient
from pellucid.rng import Stream
from pellucid.spec import register


@register("interpreter", "gradient")
@dataclass(frozen=True, kw_only=True)
class Gradient(Doors):
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

            def mapped(column: Tensor, more: bool) -> Tensor:
                return gradient(score_of(self.score, logits, column), leaf, create_graph, more or create_graph)

            maps = per_target(logits, target, mapped)
        return maps if create_graph else maps.detach()
