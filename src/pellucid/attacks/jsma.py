"""The Jacobian-based saliency map attack."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from pellucid.attacks.objective import Setup, attacking, choose_target
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.guard import check_labels, check_logits
from pellucid.maths.notes import note
from pellucid.maths.passes import gradient
from pellucid.maths.saliency import best_feature, best_pair
from pellucid.protocols import Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, Real, Share, register


class _Scores(NamedTuple):
    """What the network says of each row: the target's score, the others' sum (None: minus it), who has arrived."""

    own: Tensor
    others: Tensor | None
    arrived: Tensor


_Evaluate = Callable[[Tensor, Tensor], _Scores]


@register("attack", "jsma")
@dataclass(frozen=True, kw_only=True)
class JSMA:
    """Change, pair by pair, the few pixels that raise a target class most and lower all the others.

    With z_j the class scores and t the target: alpha(p, q) = sum over {p, q} of dz_t/dx,
    beta(p, q) = sum over {p, q} of sum_{j != t} dz_j/dx; of the pairs with alpha > 0 and beta < 0 the one with the
    highest -alpha beta is taken, x_p <- clip(x_p + theta, 0, 1), x_q likewise, and the slopes are computed anew.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape. A pixel is one of the D = C H W values, a
    channel's value of its own for colour. theta in [-1, 1], in units of [0, 1]; theta < 0 darkens and mirrors the
    conditions (alpha < 0, beta > 0). An image is done once the target is predicted, whatever `stop_when_fooled`
    says: the method is defined so. It also ends where no pair qualifies, and after `steps` steps; steps None means
    floor(gamma D / 2) pairs, or floor(gamma D) pixels: a share gamma of the image. Pixels at the end of the range
    that theta moves to are not chosen; a pixel once chosen is not chosen again, unless again=True: then it is until
    it reaches the end (of no account at theta = 1 or -1). The default is CleverHans'. Of equal pairs the one with
    the smallest p is taken, then the smallest q. The attack is always targeted: at the labels of the call, or
    by the rule `target`, "random" uniformly over the classes that are not y. A note "target" says which
    class each image was aimed at.

    pixels="single" chooses one pixel a step, by -a_p b_p with a_p > 0 and b_p < 0; Jakubovitz & Giryes take it for
    80 steps (MNIST) or 200 (CIFAR-10), with theta their epsilon. They do not print whether a pixel may be chosen
    again; JSMA(pixels="single", steps=80, theta=0.1, again=True) lets it. scores="logits" differentiates logits, as
    Ross & Doshi-Velez do; "probabilities" the softmax, as Papernot et al. do: beta is then -alpha, and an image whose
    probabilities are saturated has no slope left and stays.

    Costs per step and standing image one forward and two backward passes to the input (one for probabilities),
    whatever the number of classes; the forward of a step is the check of the step before. Memory is linear in D.
    Raises InputError for images outside [0, 1], labels out of range, fewer than two classes, slopes that are
    not finite, and by `maximise`, since a single objective has no other classes; SpecError for theta = 0.
    Source: Papernot et al. 2016, "The limitations of deep learning in adversarial settings", equations
    8 to 10; Ross & Doshi-Velez 2018, figure 5; Jakubovitz & Giryes 2018, section 4.3.
    Deviations: where no pair qualifies, CleverHans 2 (used by Ross & Doshi-Velez) silently takes the pixel with
    index 0; here the image stays as it is.
    """

    theta: Annotated[Real, Ge(-1), Le(1)] = 1.0
    gamma: Share = 0.25
    pixels: Literal["pair", "single"] = "pair"
    scores: Literal["logits", "probabilities"] = "logits"
    steps: Count | None = None
    again: Flag = False
    target: TargetRule = "random"

    def check(self) -> None:
        """Refuse a step of no size."""
        if self.theta == 0:
            raise SpecError("attack jsma needs a theta other than 0: it is what a chosen pixel is changed by")

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
        with attacking(model, x, y, target, None, rng) as setup:
            return self._walk(self._class_scores(model, setup), setup.x)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: a single objective is no class among others."""
        raise InputError("attack jsma weighs a target class against all others, and a single objective has no others")

    def _class_scores(self, model: nn.Module, setup: Setup) -> _Evaluate:
        target: Tensor | None = None

        def evaluate(point: Tensor, rows: Tensor) -> _Scores:
            nonlocal target
            logits = check_logits(model(point), point)
            if target is None:  # the first call: every image is in it, so the rule needs no forward of its own
                target = self._aim(logits.detach(), setup)
            goal = target[rows, None]
            arrived = logits.detach().argmax(1) == goal[:, 0]
            if self.scores == "probabilities":
                wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
                return _Scores(wide.softmax(1).gather(1, goal)[:, 0], None, arrived)
            others = torch.ones_like(logits).scatter_(1, goal, 0)
            return _Scores(logits.gather(1, goal)[:, 0], (logits * others).sum(1), arrived)

        return evaluate

    def _aim(self, logits: Tensor, setup: Setup) -> Tensor:
        classes = logits.shape[1]
        if classes < 2:
            raise InputError("attack jsma needs a network of at least two classes")
        y = check_labels(setup.y, len(setup.x), classes)
        if setup.target is None:
            target = choose_target(self.target, logits, y, setup.rng)
        else:
            target = check_labels(setup.target, len(setup.x), classes, "target labels")
        note("target", target)
        return target

    def _walk(self, evaluate: _Evaluate, x: Tensor) -> Tensor:
        result = x.clone(memory_format=torch.contiguous_format)
        flat, search = result.flatten(1), best_pair if self.pixels == "pair" else best_feature
        upwards = self.theta > 0
        free = flat < 1 if upwards else flat > 0
        rows = torch.arange(len(x), device=x.device)
        for _ in range(self._limit(flat.shape[1])):
            if not len(rows):
                break
            point = result[rows].requires_grad_(True)
            own, others, arrived = evaluate(point, rows)
            if bool(arrived.all()):
                break
            rise = gradient(own, point, retain_graph=others is not None).flatten(1)
            fall = -rise if others is None else gradient(others, point).flatten(1)
            rows, rise, fall = rows[~arrived], rise[~arrived], fall[~arrived]
            if not bool((rise.isfinite() & fall.isfinite()).all()):
                raise GradientError("the slopes of the scores are NaN or infinite: no pixel can be chosen by them")
            chosen, found = search(*((rise, fall) if upwards else (-rise, -fall)), free[rows])
            rows, chosen = rows[found], chosen[found]
            places = rows[:, None], chosen
            flat[places] = (flat[places] + self.theta).clamp(0, 1)
            free[places] = (flat[places] < 1 if upwards else flat[places] > 0) & self.again
        return result

    def _limit(self, features: int) -> int:
        if self.steps is not None:
            return self.steps
        share = self.gamma * features / (2 if self.pixels == "pair" else 1)
        return math.floor(share + 1e-9)  # a product such as 0.29 * 100 is a rounding error short of 29
