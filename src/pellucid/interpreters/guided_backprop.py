"""The input gradient that only positive evidence passes through."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.guard import check_logits, recording
from pellucid.interpreters.doors import Doors
from pellucid.interpreters.scores import per_target, score_of
from pellucid.maths.passes import gradient
from pellucid.maths.relu import Guide, guided_relu, relu_replaced
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream
from pellucid.spec import register


@register("interpreter", "guided_backprop")
@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(Doors):
    """The gradient of a logit, with each ReLU passing back only what is positive, where its input was positive.

    R^l = relu(R^{l+1}) [a^l > 0] at every ReLU with input a^l, in place of R^{l+1} [a^l > 0].

    x (N, C, H, W) in [0, 1], target (N,) -> maps (N, C, H, W), signed; target (N, M) -> (N, M, C, H, W) from one
    forward and M backwards. ReLUs count in every spelling: modules, shared or in place, `F.relu`, methods. Those in
    scripted or compiled modules, ReLU6 and clamps are not seen.
    Raises InputError for networks in which no ReLU runs: the map would be the plain gradient.
    Source: Springenberg et al. 2014, section 3.4. Deviations: none.
    """

    needs_relu: ClassVar[bool] = True

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
        guide = Guide()
        with recording(), relu_replaced(lambda _, values: guided_relu(values, guide)) as met:
            leaf = x if create_graph and x.requires_grad else x.detach().requires_grad_(True)
            network = model.itself if isinstance(model, Classifier) else model  # a remembered pass lacks the rule
            logits = check_logits(network(leaf), leaf)
            if not met.count:
                raise InputError(
                    "guided backpropagation needs a network with ReLUs; none ran in this one (in scripted or compiled "
                    "modules they cannot be seen), and the map would be the plain gradient"
                )

            def mapped(column: Tensor, more: bool) -> Tensor:
                return gradient(score_of("logit", logits, column), leaf, create_graph, more or create_graph)

            maps = per_target(logits, target, mapped)
        guide.active = False
        return maps if create_graph else maps.detach()
