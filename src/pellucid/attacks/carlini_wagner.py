"""The attack of Carlini & Wagner in l2: distance and misclassification, weighed against each other per image."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks.objective import Setup, attacking
from pellucid.errors import GradientError, InputError
from pellucid.guard import check_labels, check_logits
from pellucid.maths.losses import margin
from pellucid.maths.passes import gradient
from pellucid.protocols import Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, Flag, NonNegative, Positive, register

_MOST = 1e10  # the largest c that is tried
_INSIDE = 0.999999  # arctanh(1) is infinite: pixels at 0 and 1 are moved in by half a millionth
_CHECKS = 10  # how often in a run abort_early looks whether an image still improves
_PROGRESS = 0.9999
_RATES, _FLOOR = (0.9, 0.999), 1e-8  # of Adam


@register("attack", "carlini_wagner")
@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimises the squared l2 distance plus c times a hinge on the logits, with c searched for each image.

    min_w ||x'(w) - x||_2^2 + c f(x'(w)),  x'(w) = (tanh w + 1) / 2,
    f(x') = max(z_y - max_{j != y} z_j, -confidence); with a target t: f(x') = max(max_{j != t} z_j - z_t, -confidence).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in [0, 1]: per image the nearest of all
    iterates that succeeded, f(x') <= -confidence and misclassified (classified as the target). Images for which
    none did come back unchanged. There is no bound on |x' - x|. confidence is in units of the logits. w starts at
    arctanh(0.999999 (2x - 1)), so that an image which is misclassified to begin with stays where it is within 1e-6.
    Each of search_steps runs makes adam_steps steps of Adam (Kingma & Ba 2015: rates 0.9 and 0.999, 1e-8) of size
    learning_rate from that start. c begins at initial_c, is multiplied by 10 until a run succeeds (up to 1e10; in
    float16 to 65), and bisects from then on. abort_early: an image leaves a run when its own objective did not fall
    by a factor of 0.9999 within a tenth of the run. stop_when_fooled: an image leaves the attack at the first iterate
    that is misclassified, whatever the confidence: white-box accuracy, not distance.
    Costs one forward and one backward pass per step on the images still in the run.
    Raises InputError for images outside [0, 1], labels out of range, one class, and for `maximise`.
    Source: Carlini & Wagner 2017, sections V (f_6, change of variable, choice of c) and VI.A (l2).
    Deviations: the paper makes 20 runs of 10,000 steps and its released code 9 of 10,000, which is
    adam_steps=10000 here; 1000 is the usual setting of libraries. The paper is targeted (give `target`); without one,
    f is that of the released code. The code's abort looks at the sum over the batch, this one at each image, so that
    an image does not depend on the others. Its last run with the smallest c that succeeded, made if there are ten
    runs or more, is left out. Distances are to x, not to x moved inside (0, 1). foolbox walks the same points; ART
    replaces Adam by a line search and so walks others.

    >>> x, y = torch.tensor([[[[0.3, 0.7]]]]), torch.tensor([1])  # the logits are the pixels: the boundary is x1 = x2
    >>> CarliniWagner(adam_steps=200)(nn.Flatten(), x, y).round(decimals=2)
    tensor([[[[0.5000, 0.5000]]]])
    """

    confidence: NonNegative = 0.0
    search_steps: Count = 9
    adam_steps: Count = 1000
    learning_rate: Positive = 0.01
    initial_c: Positive = 1e-3
    abort_early: Flag = True
    target: TargetRule | None = None

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
        with attacking(model, x, y, target, self.target, rng) as setup:
            return self._search(model, setup, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Refuse: the hinge says where an attack has succeeded, and an objective does not."""
        raise InputError(
            "carlini_wagner weighs distance against success on the logits: it cannot maximise an objective"
        )

    def _search(self, model: nn.Module, setup: Setup, leave: bool) -> Tensor:
        """Search c: ten times larger until a run succeeds, then bisect."""
        wide = torch.promote_types(setup.x.dtype, torch.float32)
        best = _Best(setup.x.clone(), torch.full_like(setup.y, torch.inf, dtype=wide))
        low, high = torch.zeros_like(best.distance), best.distance.clone()
        c = torch.full_like(low, self.initial_c)
        rows = torch.arange(len(setup.x), device=setup.x.device)
        for _ in range(self.search_steps):
            if leave:
                rows = rows[best.distance[rows].isinf()]
            if not len(rows):
                break
            found = self._run(model, setup, c, rows, best, leave)
            high[rows] = torch.where(found, torch.minimum(high[rows], c[rows]), high[rows])
            low[rows] = torch.where(found, low[rows], torch.maximum(low[rows], c[rows]))
            most = min(_MOST, torch.finfo(setup.x.dtype).max / 1e3)  # in float16 a larger slope is none
            c = torch.where(high.isinf(), (10 * c).clamp(max=most), (low + high) / 2)
        return best.x

    def _run(self, model: nn.Module, setup: Setup, c: Tensor, rows: Tensor, best: "_Best", leave: bool) -> Tensor:
        """Minimise at one c per image; write what is nearer into `best`; return which of `rows` succeeded."""
        everyone, found = rows, torch.zeros_like(setup.y, dtype=torch.bool)
        x = setup.x[rows].to(best.distance.dtype)
        state = _Adam.start(torch.atanh(_INSIDE * (2 * x - 1)))
        before = torch.full_like(best.distance, torch.inf)
        for number in range(self.adam_steps):
            w = state.w.requires_grad_(True)
            point = ((torch.tanh(w) + 1) / 2).to(setup.x.dtype)
            logits = check_logits(model(point), point)
            if number == 0:  # not at every step: on a GPU each look at the labels waits for it
                self._check_classes(setup, logits)
            away = (point.to(x.dtype) - x).flatten(1).square().sum(1)
            hinge, succeeded, fooled = self._judge(logits, setup, rows)
            value = away + c[rows] * hinge.to(x.dtype)
            slope = gradient(value, w)
            if bool(slope.isnan().any()):
                raise GradientError("the gradient of the objective contains NaN: there is no direction to step in")
            with torch.no_grad():
                counts = fooled if leave else succeeded
                nearer = counts & (away.detach() < best.distance[rows])
                best.x[rows[nearer]] = point.detach()[nearer]
                best.distance[rows[nearer]] = away.detach()[nearer]
                found[rows[counts]] = True
                state = state.step(slope, self.learning_rate)
                staying = ~fooled if leave else torch.ones_like(fooled)
                if self.abort_early and number % max(1, -(-self.adam_steps // _CHECKS)) == 0:
                    staying &= value.detach() <= _PROGRESS * before[rows]
                    before[rows] = value.detach()
                if not bool(staying.all()):
                    rows, x, state = rows[staying], x[staying], state.take(staying)
                if not len(rows):
                    break
        return found[everyone]

    def _judge(self, logits: Tensor, setup: Setup, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hinge f(x') + confidence, and whether an image succeeded with and without the confidence."""
        predicted = logits.detach().argmax(1)
        if setup.target is None:
            gap, fooled = -margin(logits, setup.y[rows]), predicted != setup.y[rows]
        else:
            gap, fooled = margin(logits, setup.target[rows]), predicted == setup.target[rows]
        return (gap + self.confidence).clamp(min=0), fooled & (gap.detach() <= -self.confidence), fooled

    def _check_classes(self, setup: Setup, logits: Tensor) -> None:
        count = logits.shape[1]
        if count < 2:
            raise InputError("carlini_wagner needs a network of at least two classes")
        check_labels(setup.y, len(setup.x), count)
        if setup.target is not None:
            check_labels(setup.target, len(setup.x), count, "target labels")


class _Best(NamedTuple):
    """The nearest success so far, and its squared distance: infinite, and the image itself, where there is none."""

    x: Tensor
    distance: Tensor


class _Adam(NamedTuple):
    """The state of Adam for rows of variables: w (n, ...), the means of the gradient and of its square, the step."""

    w: Tensor
    mean: Tensor
    square: Tensor
    number: int

    @staticmethod
    def start(w: Tensor) -> "_Adam":
        """Return the state before the first step."""
        return _Adam(w, torch.zeros_like(w), torch.zeros_like(w), 0)

    def step(self, slope: Tensor, size: float) -> "_Adam":
        """Return the state after one step down the slope (Kingma & Ba 2015, Algorithm 1)."""
        first, second = _RATES
        number = self.number + 1
        mean = first * self.mean + (1 - first) * slope
        square = second * self.square + (1 - second) * slope.square()
        scale = (square / (1 - second**number)).sqrt() + _FLOOR
        return _Adam(self.w.detach() - size * mean / (1 - first**number) / scale, mean, square, number)

    def take(self, kept: Tensor) -> "_Adam":
        """Return the state of some rows only."""
        return _Adam(self.w[kept], self.mean[kept], self.square[kept], self.number)
