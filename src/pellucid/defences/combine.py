"""Defences made of others."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator
from torch import Tensor, nn

from pellucid.defences.distillation import Distillation
from pellucid.defences.standard import Standard
from pellucid.errors import SpecError
from pellucid.protocols import Context, DefenceField
from pellucid.spec import Reals, name_of, read_sequence, register

Parts = Annotated[tuple[DefenceField, ...], BeforeValidator(read_sequence)]


@register("defence", "sum")
@dataclass(frozen=True, kw_only=True)
class Sum:
    """Several defences at once: one plain loss, and what each adds to it; or a weighted sum of whole losses.

    without weights:  L = CE_1 + sum_i (L_i - CE_i): the plain loss ("cross_entropy") of the first, all other terms
    with weights:     L = sum_i w_i L_i

    Sum(defences=(AdversarialTraining(), JacobianRegularization())) is Jakubovitz & Giryes's combination.
    Ross & Doshi-Velez's "both defenses", 1/2 [CE(x) + penalty(x) + CE(x')], is
    Sum(defences=(DoubleBackprop(), AdversarialTraining(share=1)), weights=(0.5, 0.5)). Each part makes its own forward
    passes. Terms of the same name are added.
    x (N, C, H, W) in [0, 1], y (N,) -> the terms of all parts. Raises what the parts raise.
    Source: Ross & Doshi-Velez 2018, Figure 2 and authors' code; Jakubovitz & Giryes 2018, section 4. Deviations: Ross's
    code shares one clean forward, which changes results only where dropout or batch statistics differ between passes.
    """

    defences: Parts
    weights: Reals = ()

    @property
    def moves(self) -> str:
        """What the last part is there to move."""
        return str(self.defences[-1].moves)  # type: ignore[attr-defined]

    def check(self) -> None:
        """Refuse a sum of nothing, and weights that do not fit or are negative."""
        if not self.defences:
            raise SpecError("defence sum needs at least one defence")
        if not self.weights and (own := next((part for part in self.defences[1:] if not _plain(part)), None)):
            raise SpecError(
                f"defence sum counts the plain loss once, and that of {name_of(own)} is another loss: put it first, or "
                "give weights"
            )
        if self.weights and (len(self.weights) != len(self.defences) or min(self.weights) < 0):
            raise SpecError(f"defence sum needs a weight, 0 or more, for each of its {len(self.defences)} defences")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        total: dict[str, Tensor] = {}
        for number, defence in enumerate(self.defences):
            for name, value in defence(model, x, y, ctx).items():
                if self.weights:
                    value = self.weights[number] * value
                elif name == "cross_entropy" and number:
                    continue
                total[name] = total[name] + value if name in total else value
        return total


def _plain(defence: Any) -> bool:
    """Say whether a defence's "cross_entropy" is that of the labels, at temperature 1."""
    if isinstance(defence, Phases):
        return all(_plain(part) for part in defence.defences)
    if isinstance(defence, Sum):
        return not defence.weights and _plain(defence.defences[0])
    if isinstance(defence, Standard):
        return defence.temperature == 1
    return not isinstance(defence, Distillation)


@register("defence", "phases")
@dataclass(frozen=True, kw_only=True)
class Phases:
    """One defence after another in a single training run.

    The i-th is in force while progress (the share of the run that is done) is below until[i]; the last one to the end.

    Post-processing of a finished network, with a fresh optimiser, is `Train(init=...)` instead.
    x (N, C, H, W) in [0, 1], y (N,) -> the terms of the defence in force. Raises what that raises.
    Source: Jakubovitz & Giryes 2018, section 2 (training in two phases). Deviations: one optimiser for all phases.

    >>> from pellucid.defences import DoubleBackprop, Standard
    >>> both = Phases(defences=(Standard(), DoubleBackprop(weight=1)), until=(0.8,))
    >>> [type(both.at(Context(progress=share))).__name__ for share in (0.0, 0.79, 0.8, 1.0)]
    ['Standard', 'Standard', 'DoubleBackprop', 'DoubleBackprop']
    """

    defences: Parts
    until: Reals

    @property
    def moves(self) -> str:
        """What the last phase is there to move."""
        return str(self.defences[-1].moves)  # type: ignore[attr-defined]

    def check(self) -> None:
        """Refuse borders that do not ascend within the run, or are not one fewer than the defences."""
        borders = self.until
        if len(borders) != len(self.defences) - 1 or sorted({0.0, *borders, 1.0}) != [0.0, *borders, 1.0]:
            raise SpecError(
                "defence phases needs one border fewer than defences, ascending between 0 and 1; "
                f"got {len(self.defences)} defences and until={borders}"
            )

    def at(self, ctx: Context) -> DefenceField:
        """Return the defence in force."""
        return self.defences[sum(ctx.progress >= border for border in self.until)]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        """Return the loss terms."""
        terms: dict[str, Tensor] = self.at(ctx or Context())(model, x, y, ctx)
        return terms
