"""Spatially transformed adversarial examples: pixels move instead of changing colour."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import attacking, label_objective, plain
from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Evaluate, Step
from pellucid.maths.flow import neighbour_loss, pixels, resample, total_variation
from pellucid.maths.lbfgs import minimise
from pellucid.protocols import Mode, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, Positive, register


@register("attack", "stadv")
@dataclass(frozen=True, kw_only=True)
class StAdv:
    """A smooth flow field, found by L-BFGS, that moves the pixels of an image until it is misclassified.

    x'(p) = x(p + flow(p)), bilinear; flow = argmin L_adv(x') + weight L_flow(flow).

    form="xiao": L_adv = max(z_y - max_{j != y} z_j, -confidence), with a target t max(max_{j != t} z_j - z_t,
    -confidence); L_flow = sum_p sum_{q in N(p)} |flow(p) - flow(q)|_2 over the four neighbours, flow in pixels;
    L-BFGS with backtracking; the result is the misclassified point of least objective that was met, the last point
    if there is none. form="zhang", the code that made the images of 003: L_adv = -H(y, yhat), with a target
    H(t, yhat); L_flow = sum over neighbouring pairs of sqrt(1e-7 + |difference|^2), flow in grid units, in which the
    image spans [-1, 1]; black beyond the border; L-BFGS with steps of 0.5 without line search; the last point.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in [0, 1]: interpolation makes no new
    brightness. There is no ball: weight says how smooth the flow has to be, and, where logits are small, as those of
    a network that is rarely sure, whether fooling pays at all. steps counts those of L-BFGS, of a forward and a
    backward pass each; backtracking takes one more of both to judge the last point, and one whenever it shortens a
    step. step_size (None: 1, and 0.5 in form "zhang") is the length first tried along the direction
    of L-BFGS, history (None: 10 and 100) the number of past steps it remembers. stop_when_fooled returns the first
    point that succeeds. Each image has a flow, a history and an end of its own.
    maximise(objective) climbs objective - weight L_flow, with backtracking in either form.
    Raises InputError for images outside [0, 1] and labels out of range, SpecError for what form "zhang" lacks.
    Source: Xiao et al. 2018 (spatially transformed), equations 1 to 4, weight 0.05; Zhang & Zhu 2019 (003), code.
    Deviations: 1e-8 is added under the root of L_flow, which has no gradient at the start otherwise. Xiao et al. do
    not say what lies beyond the border (here the nearest edge), where L-BFGS starts (here at zero flow), nor for how
    long it runs (steps None: 500; at 50 it is far from its end). Zhang & Zhu run five times ten steps, here (None)
    fifty without a break, per image instead of per batch;
    their grid exchanges rows and columns, so that zero flow transposes the image: here it does not.
    """

    form: Literal["xiao", "zhang"] = "xiao"
    weight: NonNegative = 0.05
    confidence: NonNegative = 0.0
    steps: Count | None = None
    step_size: Positive | None = None
    history: Count | None = None
    target: TargetRule | None = None
    mode: Mode = "eval"

    def check(self) -> None:
        """Refuse what the code of Zhang & Zhu does not have."""
        if self.form == "zhang" and self.confidence:
            raise SpecError("attack stadv has a confidence in form 'xiao' only")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        rng: Stream | None = None,
        stop_when_fooled: bool = False,
    ) -> Tensor:
        """Return the adversarial images."""
        with attacking(model, x, y, target, self.target, rng, self.mode) as setup:
            if self.form == "zhang":
                evaluate = label_objective(model, setup, "cross_entropy")
            else:
                margins = label_objective(model, setup, "margin")

                def evaluate(point: Tensor, rows: Tensor) -> Step:
                    step = margins(point, rows)
                    return Step(step.values.clamp(max=self.confidence), step.finished)

            return self._descend(evaluate, setup.x, self.form == "xiao", stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return x moved by the flow that maximises any per-example objective - weight L_flow(flow)."""
        return self._descend(plain(objective), check_images(x.detach()), line_search=True, leave=False)

    def _descend(self, evaluate: Evaluate, x: Tensor, line_search: bool, leave: bool) -> Tensor:
        zhang = self.form == "zhang"

        def moved(flow: Tensor, rows: Tensor) -> Tensor:
            placed = resample(x[rows], pixels(flow), "zeros") if zhang else resample(x[rows], flow)
            return placed.clamp(0, 1)  # against rounding only

        def lowered(flow: Tensor, rows: Tensor) -> Step:
            step = evaluate(moved(flow, rows), rows)
            rough = total_variation(flow) if zhang else neighbour_loss(flow)
            return Step(self.weight * rough - step.values, step.finished)

        wide = torch.promote_types(x.dtype, torch.float32)
        start = x.new_zeros((len(x), 2, *x.shape[2:]), dtype=wide)
        found = minimise(
            lowered,
            start,
            self.steps or (50 if zhang else 500),
            step_size=self.step_size or (1.0 if line_search else 0.5),
            history=self.history or (100 if zhang else 10),
            line_search=line_search,
            leave=leave,
        )
        with torch.no_grad():
            flow = found.x if zhang or leave else found.best
            return moved(flow, torch.arange(len(x), device=x.device))
