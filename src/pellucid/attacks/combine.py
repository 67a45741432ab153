"""Attacks made of others: the worst of several, and the best of several runs of one."""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.attacks.epsilon import has_eps, with_eps
from pellucid.attacks.masking import MASKING, REPLACED, RobustnessWarning
from pellucid.attacks.objective import attacking, label_objective, take_better
from pellucid.errors import SpecError
from pellucid.guard import check_images
from pellucid.maths.ascent import Ascent, nothing
from pellucid.maths.notes import listening, note, noted
from pellucid.maths.resume import within
from pellucid.protocols import Attack, AttackField, Objective, TargetRule
from pellucid.rng import Stream
from pellucid.spec import Count, name_of, read_sequence, register


@register("attack", "worst")
@dataclass(frozen=True, kw_only=True)
class Worst:
    """Several attacks on every image, of whose results the worst is kept.

    x' = the result of an attack that succeeds, of these the one with the highest cross entropy; where none
    succeeds, the one with the highest cross entropy of all (with a target: the lowest of the target).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape, where the attacks put it. Each costs its own
    passes and one forward to judge it. stop_when_fooled: each attack gets only the images that none before it fooled,
    and lets them leave early too; the first success is kept. `with_eps` moves every attack that has an eps, in
    the unit of each. If all attacks have the same target rule, the targets are chosen once, for all, and success
    is to reach them; otherwise each follows its own, and success is misclassification. The first attack draws the
    random numbers it would draw alone, the others numbers of their own. An attack that learns from many images
    learns from those it is handed. Leaves the note fooled_by: the number of the attack that was kept, -1 where
    none succeeded, and passes on what its members warn of (`masking.MASKING`). `maximise` keeps the highest value.
    In words attacks are parted by commas: attacks="pgd eps=0.1, square eps=0.1 queries=500".
    Raises SpecError for attacks whose aim is not the label, InputError where one of the attacks does.
    Source: Croce & Hein 2020, Reliable evaluation of adversarial robustness (the worst case over several attacks).
    Deviations: none.
    """

    attacks: Annotated[tuple[AttackField, ...], BeforeValidator(read_sequence)]

    def check(self) -> None:
        """Refuse to compare nothing, and attacks that do not aim at the label."""
        if not self.attacks:
            raise SpecError("attack worst needs at least one attack")
        for attack in self.attacks:
            _check_aim("worst", attack)

    @property
    def target(self) -> TargetRule | None:
        """The target rule that all attacks share, None if they differ."""
        rules = {getattr(attack, "target", None) for attack in self.attacks}
        return rules.pop() if len(rules) == 1 else None

    def with_eps(self, eps: float) -> "Worst":
        """Return it with another eps for every attack that has one; raise SpecError if none has."""
        if not any(has_eps(attack) for attack in self.attacks):
            raise SpecError("attack worst has no attack whose eps could be varied")
        moved = tuple(with_eps(attack, eps) if has_eps(attack) else attack for attack in self.attacks)
        return dataclasses.replace(self, attacks=moved)

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
        return _worst(self.attacks, self.target, model, x, y, target, rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return, for each image, the result with the highest value of any per-example objective."""
        return _highest(self.attacks, objective, x, rng)


@register("attack", "restarts")
@dataclass(frozen=True, kw_only=True)
class Restarts:
    """One attack several times, with random numbers of its own each time, of whose results the best is kept.

    x' = the result of a run that succeeds, of these the one with the highest cross entropy; where none
    succeeds, the one with the highest cross entropy of all (with a target: the lowest of the target).

    x (N, C, H, W) in [0, 1], y (N,) true labels -> x' of the same shape, where the attack puts it. It is `Worst` of
    the same attack `times` times: the first run is that of the attack alone, each costs one forward more to be
    judged, stop_when_fooled gives each run only the images that none before it fooled. Targets are chosen once. An
    attack that draws no random numbers gives the same each time.
    Raises SpecError for an attack whose aim is not the label, InputError where the attack does.
    Source: Madry et al. 2018 (many random starts). Deviations: none.
    """

    inner: AttackField
    times: Count = 10

    def check(self) -> None:
        """Refuse an attack that does not aim at the label."""
        _check_aim("restarts", self.inner)

    @property
    def target(self) -> TargetRule | None:
        """The target rule of the attack."""
        rule: TargetRule | None = getattr(self.inner, "target", None)
        return rule

    def with_eps(self, eps: float) -> "Restarts":
        """Return it with another eps; raise SpecError if the attack has none."""
        return dataclasses.replace(self, inner=with_eps(self.inner, eps))

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
        return _worst((self.inner,) * self.times, self.target, model, x, y, target, rng, stop_when_fooled)

    def maximise(self, objective: Objective, x: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return, for each image, the run with the highest value of any per-example objective."""
        return _highest((self.inner,) * self.times, objective, x, rng)


def _check_aim(name: str, attack: Attack) -> None:
    if getattr(attack, "aim", "label") != "label":
        raise SpecError(f"attack {name} compares attacks by the label; {name_of(attack)} does not aim at it")


def _stream(rng: Stream, number: int) -> Stream:
    return rng.child("attack", number) if number else rng  # the first as if it were alone


def _worst(
    attacks: Sequence[Attack],
    rule: TargetRule | None,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    rng: Stream | None,
    leave: bool,
) -> Tensor:
    with attacking(model, x, y, target, rule, rng) as setup:
        evaluate = label_objective(model, setup)
        best = nothing(setup.x)
        made_by = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        warned: dict[str, Tensor] = {}
        for number, attack in enumerate(attacks):
            left = torch.nonzero(~(best.finished & leave))[:, 0]
            if not len(left):
                break
            with noted() as said, within(f"attack-{number}"):
                made = attack(
                    model,
                    setup.x[left],
                    setup.y[left],
                    target=None if setup.target is None else setup.target[left],
                    rng=_stream(setup.rng, number).take(left),
                    stop_when_fooled=leave,
                )
            for name in said.keys() & {*MASKING, *REPLACED}:  # a warning of one is a warning of all
                warned.setdefault(name, torch.zeros_like(best.finished))[left] |= said[name]
            with torch.no_grad():
                values, finished = evaluate(made, left)
            assert finished is not None
            made_by[take_better(best, Ascent(made, values.to(best.values.dtype), finished), left)] = number
        note("fooled_by", torch.where(best.finished, made_by, -1))
        for name, flags in warned.items():
            note(name, flags)
            if bool(flags.any()) and not listening():
                meaning = {**MASKING, **REPLACED}[name]
                share = f"{name}, {int(flags.sum())} of {len(x)} images"
                warnings.warn(f"{meaning} ({share})", RobustnessWarning, stacklevel=3)
        return best.x


def _highest(attacks: Sequence[Attack], objective: Objective, x: Tensor, rng: Stream | None) -> Tensor:
    x = check_images(x.detach())
    everyone = torch.arange(len(x), device=x.device)
    best, highest = x.clone(), None
    for number, attack in enumerate(attacks if len(x) else ()):
        with noted(), within(f"attack-{number}"):
            made = attack.maximise(objective, x, rng=_stream(rng or Stream(), number))
        with torch.no_grad():
            values = objective(made, everyone)
        better = torch.ones_like(everyone, dtype=torch.bool) if highest is None else values > highest
        highest = values if highest is None else torch.where(better, values, highest)
        best[better] = made[better]
    return best
