"""DeepFool: the nearest decision boundary, one linearisation after another."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Setup, attacking
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.guard import check_labels, check_logits
from pellucid.maths.balls import dual_norm, steepest
from pellucid.maths.passes import gradient
from pellucid.protocols import Norm, Objective
from pellucid.rng import Stream
from pellucid.spec import Count, NonNegative, register

_FARTHEST = 1e3  # a step where the network is all but flat: longer than [0, 1]^D is wide, and 50 fit into float16


@register("attack", "deepfool")
@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Steps to the nearest boundary of the linearised network until the label changes: a small perturbation.

    At x_i, for the candidates k != k0: f_k = z_k - z_k0, w_k = grad f_k, l = argmin_k |f_k| / ||w_k||_q;
    l2:   r_i = (|f_l| / ||w_l||_2 + nudge) w_l / ||w_l||_2  (q = 2),
    linf: r_i = (|f_l| / ||w_l||_1 + nudge) sign(w_l)        (q = 1);
    x_{i+1} = clip(x_0 + (1 + overshoot) sum_{j <= i} r_j), while argmax z(x_i) = k0 and i < steps.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in [0, 1]; there is no bound on |x' - x|,
    and where `steps` did not suffice x' is the last iterate, not misclassified. nudge is a length in the norm, in
    units of [0, 1]. k0 is the label that the network predicts for x, not y: every image is moved out of its own
    class, which measures distances to the boundary (rho_adv), and an image that was misclassified may be right
    afterwards. With stop_when_fooled (white-box accuracy) images that are misclassified to begin with come back
    as they are; all others are attacked as without it. candidates is how many classes, k0 among them, are looked
    at: the likeliest ones of the clean image; None is all of them, exact. Given target labels t, the only boundary
    stepped to is that between t and the likeliest other class at x_i, until argmax z = t.
    overshoot_at="each_step" judges and differentiates at the overshot iterate; "end" climbs without overshoot and
    multiplies the whole perturbation by 1 + overshoot once the label changed. clip="each_step" clips what the
    network sees to [0, 1], so that a label that changed stays changed; "end" lets iterates leave [0, 1] and clips
    the result only, which may undo the change.
    Costs F + (c - 1) B per step on the images still standing (c candidates; F and B one forward and backward pass).
    Where images leave, the forward is made again on the others if that is cheaper than to differentiate for all.
    Raises InputError for images outside [0, 1], labels out of range, one class, and for `maximise`.
    Source: Moosavi-Dezfooli et al. 2016, Algorithm 2; linf by its equations 10 and 11 with p = inf.
    Deviations: the paper's loop is overshoot_at="end", nudge=0: it stops in rounding noise on the boundary itself,
    so the default is the authors' loop (overshoot at each step, nudge 1e-4, ten classes, 50 steps), in which the
    returned point is the one judged. Neither clips; here the result lies in [0, 1]. A target is an addition.

    >>> x, y = torch.tensor([[[[0.3, 0.7]]]]), torch.tensor([1])  # the logits are the pixels: the boundary is x1 = x2
    >>> DeepFool(nudge=0.0)(nn.Flatten(), x, y)
    tensor([[[[0.5040, 0.4960]]]])
    """

    norm: Norm = "l2"
    steps: Count = 50
    overshoot: NonNegative = 0.02
    candidates: Count | None = 10
    nudge: NonNegative = 1e-4
    overshoot_at: Literal["each_step", "end"] = "each_step"
    clip: Literal["each_step", "end"] = "each_step"

    def check(self) -> None:
        """Refuse a single candidate: it has no boundary."""
        if self.candidates == 1:
            raise SpecError("attack deepfool needs at least 2 candidates (its own class and another), or none for all")

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
            return self._walk(model, setup, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: boundaries lie between classes, and an objective has none."""
        raise InputError("deepfool walks to the boundary between classes: it cannot maximise an objective")

    def _walk(self, model: nn.Module, setup: Setup, leave_if_wrong: bool) -> Tensor:
        out, rows = setup.x.clone(), torch.arange(len(setup.x), device=setup.x.device)  # rows: those still standing
        total, classes = torch.zeros_like(setup.x), setup.y[:, None]  # sum of their steps; k0 and its rivals
        for number in range(self.steps):
            if not len(rows):
                break
            point = self._iterate(setup.x[rows], total).requires_grad_(True)
            logits = check_logits(model(point), point)
            predicted = logits.detach().argmax(1)
            if number == 0:
                classes = self._classes(setup, logits.detach())
            if setup.target is not None:
                done, pairs = predicted == setup.target[rows], torch.stack([predicted, setup.target[rows]], 1)
            else:
                aside = leave_if_wrong and number == 0
                done, pairs = predicted != (setup.y if aside else classes[:, 0]), classes
            standing = ~done
            left, gone = int(standing.sum()), len(rows) - int(standing.sum())
            if gone:
                out[rows[done]] = self._result(setup.x[rows[done]], total[done])
                rows, total, classes = rows[standing], total[standing], classes[standing]
                if 0 < left < gone * (pairs.shape[1] - 1):  # a new graph without those that left is cheaper
                    point, pairs = point.detach()[standing].requires_grad_(True), pairs[standing]
                    logits, standing = model(point), standing[standing]
            if left:
                total = total + self._step(logits, pairs, point, standing)
        out[rows] = self._result(setup.x[rows], total)
        return out

    def _classes(self, setup: Setup, logits: Tensor) -> Tensor:
        """Return (N, c) classes: the predicted one, then the likeliest others of the clean image."""
        count = logits.shape[1]
        if count < 2:
            raise InputError("deepfool needs a network of at least two classes: one class has no boundary")
        check_labels(setup.y, len(setup.x), count)
        if setup.target is not None:
            check_labels(setup.target, len(setup.x), count, "target labels")
        first = logits.scatter(1, logits.argmax(1, keepdim=True), torch.inf)  # in a tie too, k0 is what argmax says
        order = torch.argsort(first, dim=1, descending=True, stable=True)
        return order if self.candidates is None else order[:, : self.candidates]

    def _step(self, logits: Tensor, pairs: Tensor, point: Tensor, standing: Tensor) -> Tensor:
        """Return r_i of the rows that stand; the logits, classes and points are those of all rows in the graph."""
        own, last = logits.gather(1, pairs[:, :1]), pairs.shape[1] - 1
        nearest, direction = logits.new_zeros(0), point  # of the candidates so far: one slope is held, not c - 1
        for k in range(1, last + 1):
            gap = (logits.gather(1, pairs[:, k : k + 1]) - own)[:, 0]
            slope = gradient(gap, point, retain_graph=k < last)[standing]
            length = dual_norm(self.norm, slope)
            away = torch.where(length == 0, torch.inf, gap.detach()[standing].abs() / length)
            if k == 1:
                nearest, direction = away, slope
            else:
                closer = (away < nearest) | away.isnan()  # NaN stays, to be found below
                nearest = torch.where(closer, away, nearest)
                direction = torch.where(closer.view(-1, 1, 1, 1), slope, direction)
        if bool(nearest.isnan().any()):
            raise GradientError("the gradient of the logits contains NaN: there is no boundary to step to")
        size = (nearest + self.nudge).clamp(max=_FARTHEST).to(point.dtype)
        return size.view(-1, 1, 1, 1) * steepest(self.norm, direction)

    def _iterate(self, x: Tensor, total: Tensor) -> Tensor:
        """Return what the network sees: x_i."""
        point = x + (1 + self.overshoot if self.overshoot_at == "each_step" else 1.0) * total
        return point.clamp(0, 1) if self.clip == "each_step" else point

    def _result(self, x: Tensor, total: Tensor) -> Tensor:
        return (x + (1 + self.overshoot) * total).clamp(0, 1)
