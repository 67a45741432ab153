"""The input gradient times the image."""

from dataclasses import dataclass

from torch import Tensor, nn

from pellucid.interpreters.doors import Doors
from pellucid.interpreters.gradient import Gradient
from pellucid.interpreters.scores import Score
from pellucid.rng import Stream
from pellucid.spec import register


@register("interpreter", "gradient_times_input")
@dataclass(frozen=True, kw_only=True)
class GradientTimesInput(Doors):
    """The gradient of a score times the image: what each pixel adds to a linear score.

    I(x, c) = x * d s_c(x) / dx, elementwise; the scores are those of `Gradient`.

    x (N, C, H, W) in [0, 1] (black pixels have no part in any map), target (N,) -> maps (N, C, H, W), signed;
    target (N, M) -> (N, M, C, H, W). Raises InputError for images outside [0, 1] and labels out of range.
    Source: Shrikumar et al. 2016, section 3. Deviations: none; x is the image in [0, 1], not what the network's
    own normalisation makes of it.
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
        slope = Gradient(score=self.score).maps(model, x, target, create_graph=create_graph)
        maps = slope * (x if target.ndim == 1 else x[:, None])
        return maps if create_graph else maps.detach()
