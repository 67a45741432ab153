"""AutoAttack: a fixed sequence of attacks with nothing to tune, and signs that the network misled them."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.attacks.apgd import APGD
from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.fab import FAB
from pellucid.attacks.masking import MASKING, RobustnessWarning, look
from pellucid.attacks.objective import Size, attacking
from pellucid.attacks.square import Square
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.guard import check_images, check_logits
from pellucid.maths.losses import cross_entropy, dlr, margin
from pellucid.maths.notes import listening, note, noted
from pellucid.maths.passes import note_backward
from pellucid.maths.resume import kept, within
from pellucid.protocols import Attack, AttackField, Norm, Objective
from pellucid.rng import Stream, global_seed
from pellucid.spec import Count, name_of, read_sequence, register

_CLEAN, _STANDING = -2, -1  # in the note fooled_by: misclassified before any attack; by none
_ORDER: dict[Norm, float] = {"linf": torch.inf, "l2": 2.0}


@register("attack", "autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """Four attacks, one after another, each on the images that are still classified right.

    standard: APGD on the cross entropy; APGD on the targeted difference of logits ratio, FAB-T, both for each of
    `targets` other classes; Square with `queries` queries. rand, for networks that draw random numbers: APGD on the
    cross entropy, then on the difference of logits ratio, each on the mean over `samples` passes (expectation over
    transformations): max_x' (1/S) sum_s L(f_s(x'), y), whose gradient is the mean of S gradients. attacks=(...):
    these instead, at this eps.

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape in the ball of radius eps (norm linf or
    l2 per image, in units of [0, 1]): the image that fooled the network, and x where none did or none was needed.
    One forward pass after each stage judges it; in rand that is a fresh draw. An image that left the ball does not
    count. Each stage draws its own random numbers; global ones, which a network with noise may draw, are seeded for
    each stage and restored. Stages are pieces of work for `maths.resume.kept`: an interrupted run goes on at the
    first stage that was not finished.

    Notes per image (`maths.notes.noted`): fooled_by, the number of the stage from 0, -1 where none succeeded, -2 where
    x is misclassified; a bool for every check in `masking.MASKING`, and for what was replaced (`masking.REPLACED`):
    fewer_targets (K - 1 are fewer than `targets`) and dlr_fallback (see APGD). Where nobody collects notes, each check
    that failed is a RobustnessWarning. White-box stages leave out images with NaN gradients, before or on the way, and
    networks that cut the gradient off; black-box stages (class attribute black_box) get them all.
    stop_when_fooled plays no part: fooled images always leave. `maximise` returns the best of the stages that can
    climb an objective (each once: APGD and Square; in rand APGD on the mean of `samples` values).
    Raises InputError for images outside [0, 1], labels out of range, targets and networks with one class; SpecError
    for attacks of another norm.

    >>> from pellucid.maths.notes import noted
    >>> x = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]]], [[[0.5, 0.4], [0.4, 0.2]]], [[[0.1, 0.2], [0.3, 0.4]]]])
    >>> with noted() as notes:
    ...     changed = AutoAttack(eps=0.1, steps=10, queries=100)(nn.Flatten(), x, torch.tensor([0, 0, 0]))
    >>> notes["fooled_by"], notes["zero_gradient"]
    (tensor([-1,  0, -2]), tensor([False, False, False]))

    Source: Croce & Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, section 5; checks and rand: the authors' code. The stages have the settings of that code, with which the
    published leaderboards were computed: FAB without its final search, Square's p_init 0.8 on a schedule that is not
    rescaled. Deviations: both APGDs have the paper's form, from a start drawn in the ball, where that code has its own
    form and a start on the surface (form and start of APGD); rand climbs the mean loss, where their code averages
    gradients but takes loss and success from the last of the samples.
    """

    norm: Norm = "linf"
    eps: Size
    version: Literal["standard", "rand"] = "standard"
    attacks: Annotated[tuple[AttackField, ...], BeforeValidator(read_sequence)] = ()
    steps: Count = 100
    targets: Count = 9
    queries: Count = 5000
    samples: Count = 20

    def check(self) -> None:
        """Refuse attacks that do not fit."""
        if self.attacks and self.version != "standard":
            raise SpecError("attack autoattack takes attacks of your own or version rand, not both")
        for attack in self.attacks:
            if getattr(attack, "aim", "label") != "label":
                raise SpecError(f"attack autoattack counts wrong labels; {name_of(attack)} does not aim at the label")
            if hasattr(attack, "eps") and not hasattr(attack, "norm"):
                raise SpecError(
                    f"attack autoattack hands on its eps; that of {name_of(attack)} is not the size of a ball"
                )
            norm = getattr(attack, "norm", self.norm)
            if norm != self.norm:
                raise SpecError(f"attack autoattack is in {self.norm}, but its {name_of(attack)} is in {norm}")

    def stages(self) -> tuple[Attack, ...]:
        """Return the attacks in their order, each at this eps."""
        if self.attacks:
            return tuple(with_eps(attack, self.eps) if has_eps(attack) else attack for attack in self.attacks)
        size: dict[str, Any] = {"norm": self.norm, "eps": self.eps}
        first = APGD(**size, steps=self.steps)
        if self.version == "rand":
            return first, APGD(**size, steps=self.steps, loss="dlr")
        return (
            first,
            APGD(**size, steps=self.steps, loss="targeted_dlr", targets=self.targets),
            FAB(**size, steps=self.steps, targets=self.targets, final_steps=0),
            Square(**size, queries=self.queries, schedule="authors"),
        )

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
            if setup.target is not None:
                raise InputError("attack autoattack takes no targets: it counts any wrong class; attack with apgd")
            if not len(setup.x):
                return setup.x.clone()
            out, fooled_by, flags = self._run(model, setup.x, setup.y, setup.rng)
        note("fooled_by", fooled_by)
        for name, flag in flags.items():
            note(name, flag)
        if not listening():
            for name, meaning in MASKING.items():
                if bool(flags[name].any()):
                    share = f"{name}, {int(flags[name].sum())} of {len(x)} images"
                    warnings.warn(f"{meaning} ({share})", RobustnessWarning, stacklevel=2)
        return out

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return, for each image, the best that the stages reach for any per-example objective."""
        x, rng = check_images(x.detach()), rng or Stream()
        rows = torch.arange(len(x), device=x.device)
        if self.version == "rand":
            objective = averaged(objective, self.samples)
        stages = self.stages()
        if not self.attacks:  # one of each kind: losses and targets play no part in an objective
            stages = stages[:1] if self.version == "rand" else (stages[0], stages[-1])
        best, highest, refusal = x.clone(), None, None
        for number, stage in enumerate(stages):
            try:
                found = stage.maximise(objective, x, rng=rng.child("stage", number))
            except InputError as error:
                refusal = error
                continue
            with torch.no_grad():
                values = objective(found, rows)
                highest = objective(x, rows) if highest is None else highest
            better = (values > highest) & inside(self.norm, x, found, self.eps)
            best[better], highest = found[better], torch.where(better, values, highest)
        if highest is None and refusal is not None:
            raise refusal
        return best

    def _run(self, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the images, the stage that fooled each, and the flags."""
        seen = dict(kept("checks", partial(_first_look, model, x, y, rng)))
        classes = int(seen.pop("classes"))
        if classes < 2:
            raise InputError("attack autoattack needs at least two classes")
        blind, flags = seen.pop("blind"), {name: seen[name].clone() for name in seen if name in MASKING}
        if self.version == "rand":
            flags["randomised"].fill_(False)  # what it is there for
        out, fooled_by = x.clone(), torch.where(seen["right"], _STANDING, _CLEAN)
        stages, seeing = self.stages(), False
        beaten = torch.zeros_like(blind)
        fallback = torch.zeros_like(blind)
        for number, stage in enumerate(stages):
            black_box = getattr(stage, "black_box", False)
            rows = torch.nonzero((fooled_by == _STANDING) & (black_box | ~blind))[:, 0]
            if len(rows):
                stream = rng.child("stage", number).take(rows)
                work = partial(self._stage, stage, model, x[rows], y[rows], stream)
                found = kept(f"stage-{number}-{name_of(stage)}", work)
                fell = rows[found["fooled"]]
                out[fell], fooled_by[fell] = found["x"], number
                flags["non_finite_gradient"][rows] |= found["lost"]
                fallback |= found["dlr_fallback"].any()
                if black_box and seeing:
                    beaten[fell] = True
            seeing = seeing or not black_box
        few = not self.attacks and self.version == "standard" and classes - 1 < self.targets
        replaced = {"fewer_targets": torch.full_like(blind, few), "dlr_fallback": fallback}
        return out, fooled_by, flags | {"black_box_beats_white_box": beaten} | replaced

    def _stage(self, stage: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> dict[str, Tensor]:
        """Return the images that a stage fooled, which they are, and on which it had no gradient to go by."""
        with global_seed(rng.child("network").seed, x.device), noted() as said:
            found, lost = self._attempt(stage, model, x, y, rng)
            with torch.no_grad():
                wrong = check_logits(model(found), found).argmax(1) != y
        fooled = wrong & inside(self.norm, x, found, self.eps)
        fallback = "dlr_fallback" in said and bool(said["dlr_fallback"].any())
        return {
            "x": found[fooled],
            "fooled": fooled,
            "lost": lost,
            "dlr_fallback": torch.full_like(fooled, fallback),
        }

    def _attempt(self, stage: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> tuple[Tensor, Tensor]:
        """Return a stage's images and, as bool, those it gave up: halved until only they are left out.

        One image with NaN on its way ends a stage for its whole batch, but no image's result depends on the batch.
        """
        lost = torch.zeros_like(y, dtype=torch.bool)
        try:
            if self.version == "rand":
                return self._on_the_mean(stage, model, x, y, rng), lost
            return stage(model, x, y, rng=rng, stop_when_fooled=True), lost
        except GradientError:
            if len(x) == 1:
                return x.clone(), ~lost
        parts = []
        for number, rows in enumerate(torch.arange(len(x), device=x.device).chunk(2)):
            with within(f"half-{number}"):
                parts.append(self._attempt(stage, model, x[rows], y[rows], rng.take(rows)))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _on_the_mean(self, stage: Attack, model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
        loss = _ratio if getattr(stage, "loss", None) == "dlr" else cross_entropy
        return stage.maximise(
            averaged(lambda point, rows: loss(check_logits(model(point), point), y[rows]), self.samples), x, rng=rng
        )


def _first_look(model: nn.Module, x: Tensor, y: Tensor, rng: Stream) -> dict[str, Tensor]:
    with global_seed(rng.child("network").seed, x.device):
        seen = look(model, x, y)
    logits = check_logits(seen.logits, x)
    classes = torch.tensor(logits.shape[1], device=x.device)
    return {"right": logits.argmax(1) == y, "classes": classes, "blind": seen.blind, **seen.flags}


def _ratio(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, for two classes the margin, as APGD does."""
    if logits.shape[1] > 2:
        return dlr(logits, y)
    note("dlr_fallback", torch.ones_like(y, dtype=torch.bool))
    return margin(logits, y)


def inside(norm: Norm, x: Tensor, found: Tensor, eps: float) -> Tensor:
    """Say which images lie in the ball around x, but for rounding: bool (N,)."""
    length = torch.linalg.vector_norm((found - x).double().flatten(1), ord=_ORDER[norm], dim=1)
    rounding = torch.finfo(x.dtype).eps * (1 if norm == "linf" else x.shape[1:].numel() ** 0.5)
    small: Tensor = length <= eps * (1 + 1e-5) + rounding
    return small


def averaged(objective: Objective, samples: int) -> Objective:
    """Return the mean of an objective over `samples` evaluations, differentiable: expectation over transformations.

    (1/S) sum_s o_s(x'), gradient (1/S) sum_s grad o_s(x'). One sample is held in memory at a time, so the gradient is
    taken on the way forward. Source: Athalye et al. 2018, Obfuscated gradients, section 4.2.
    """

    def mean(point: Tensor, rows: Tensor) -> Tensor:
        result: Tensor = _Mean.apply(point, objective, rows, samples)  # type: ignore[no-untyped-call]
        return result

    return mean


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, point: Tensor, objective: Objective, rows: Tensor, samples: int) -> Tensor:
        wanted, values, slopes = ctx.needs_input_grad[0], [], torch.zeros_like(point)
        for _ in range(samples):
            leaf = point.detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                value = objective(leaf, rows)
            if wanted and value.requires_grad:
                slopes += torch.autograd.grad(value, leaf, torch.ones_like(value))[0]
            values.append(value.detach())
        if wanted:
            note_backward((samples - 1) * len(point))  # who differentiates the mean counts one
        ctx.save_for_backward(slopes / samples)
        return torch.stack(values).mean(0)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return outer[0].to(slope).view(-1, *[1] * (slope.ndim - 1)) * slope, None, None, None
