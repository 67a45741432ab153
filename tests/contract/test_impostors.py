"""The checks themselves are checked: impostors that look like methods must fail where they are meant to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pellucid.defences import Standard
from pellucid.guard import check_images, check_labels
from pellucid.protocols import Context
from pellucid.rng import Stream

from . import attack_checks, defence_checks, interpreter_checks
from .attack_checks import in_a_ball
from .worlds import World

# The impostors are not registered, so that no other test meets them: `_registered_as` is all that checks see.


@dataclass(frozen=True, kw_only=True)
class DoesNothing:
    """An attack that returns the clean images."""

    eps: float = 0.1
    steps: int = 3
    norm: str = "linf"
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "does nothing")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        check_labels(y, len(x))
        return check_images(x).clone()

    def maximise(self, objective: Any, x: Tensor, **_: Any) -> Tensor:
        return x.clone()


@dataclass(frozen=True, kw_only=True)
class OnlyNoise(DoesNothing):
    """An attack that adds random signs."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: Stream | None = None, **_: Any) -> Tensor:
        return (x + self.eps * (2 * (rng or Stream()).uniform(x) - 1).sign()).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LeavesTheBall(DoesNothing):
    """An attack that moves further than its eps."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        return (x + 1.01 * self.eps).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LeavesEvalMode(DoesNothing):
    """An attack that does not put the mode of the network back."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        model.eval()
        return x.clone()


@dataclass(frozen=True, kw_only=True)
class DrawsGlobally(DoesNothing):
    """An attack that draws from the global generator."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        return (x + 0.01 * torch.rand(x.shape)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class MixesTheBatch(DoesNothing):
    """An attack whose result for one image depends on the others."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        return (x + 0.01 * x.mean(0)).clamp(0, 1)


@dataclass(frozen=True)
class Zeros:
    """An interpreter that returns nothing."""

    _registered_as: ClassVar[tuple[str, str]] = ("interpreter", "zeros")

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor, **_: Any) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Noise(Zeros):
    """An interpreter that returns random numbers."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor, *, rng: Stream | None = None, **_: Any) -> Tensor:
        return (rng or Stream()).normal(x)


@dataclass(frozen=True)
class Hoards(Zeros):
    """An interpreter that keeps every map it made."""

    _kept: ClassVar[list[Tensor]] = []

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor, **_: Any) -> Tensor:
        self._kept.append(x * 2)
        return self._kept[-1]


@dataclass(frozen=True)
class TheImage(Zeros):
    """An interpreter that returns the image, whatever the network (an edge detector, in effect)."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor, **_: Any) -> Tensor:
        return x.detach().clone()


@dataclass(frozen=True)
class PlainUnderAnotherName:
    """A defence that is plain cross-entropy."""

    _registered_as: ClassVar[tuple[str, str]] = ("defence", "plain under another name")
    moves: ClassVar[str] = "input_gradient_norm"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        return Standard()(model, x, y, ctx) | {"penalty": torch.zeros((), dtype=x.dtype)}


@dataclass(frozen=True)
class PlainAgainstAttacks(PlainUnderAnotherName):
    """The same, said to help against attacks."""

    moves: ClassVar[str] = "attacked_accuracy"


@dataclass(frozen=True)
class MovesNothing(PlainUnderAnotherName):
    """A defence that hides behind the word that plain training uses."""

    moves: ClassVar[str] = "nothing"


@dataclass(frozen=True)
class StopsTheGradient(PlainUnderAnotherName):
    """A defence whose penalty does not train."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context | None = None) -> dict[str, Tensor]:
        plain = Standard()(model, x, y, ctx)
        with torch.no_grad():
            penalty = model(x).square().mean()
        return plain | {"penalty": penalty * plain["cross_entropy"]}


# (impostor, the check that must catch it, words of the reason: caught for the right one)
IMPOSTORS = [
    (DoesNothing(), attack_checks.check_it_works, "pixels shuffled"),
    (DoesNothing(), attack_checks.check_a_target_is_approached, "target did not fall"),
    (DoesNothing(), attack_checks.check_maximise_climbs_any_objective, "did not rise"),
    (OnlyNoise(), attack_checks.check_it_works, "pixels shuffled"),
    (LeavesTheBall(), attack_checks.check_stays_in_the_ball, "an image moved by"),
    (LeavesTheBall(), attack_checks.check_refuses_what_is_no_image, "DID NOT RAISE"),
    (LeavesEvalMode(), attack_checks.check_leaves_the_model_as_it_was, "modes of the submodules"),
    (DrawsGlobally(), attack_checks.check_leaves_the_model_as_it_was, "global generator"),
    (DrawsGlobally(), attack_checks.check_same_stream_same_images, "same stream"),
    (DrawsGlobally(), attack_checks.check_eps_zero_changes_nothing, "eps = 0"),
    (MixesTheBatch(), attack_checks.check_together_as_alone, "alone differs"),
    (Zeros(), interpreter_checks.check_looks_at_the_object, "empty map"),
    (Zeros(), interpreter_checks.check_depends_on_the_model, "empty map"),
    (Zeros(), interpreter_checks.check_detached_unless_asked, "with a graph"),
    (Noise(), interpreter_checks.check_looks_at_the_object, "times the mass of chance"),
    (Noise(), interpreter_checks.check_depends_on_the_model, "does not depend on the model"),
    (Hoards(), interpreter_checks.check_leaks_nothing, "left behind"),
    (TheImage(), interpreter_checks.check_depends_on_the_model, "does not depend on the model"),
    (
        PlainUnderAnotherName(),
        defence_checks.check_moves_what_it_is_there_to_move,
        "after as many plain steps",
    ),
    (PlainAgainstAttacks(), defence_checks.check_moves_what_it_is_there_to_move, "after as many plain steps"),
    (MovesNothing(), defence_checks.check_says_what_it_moves, "must be one of"),
    (
        StopsTheGradient(),
        defence_checks.check_gradients_agree_with_finite_differences,
        "not that of the loss",
    ),
]


@pytest.mark.parametrize(
    ("impostor", "check", "words"),
    IMPOSTORS,
    ids=[f"{type(i).__name__}-{c.__name__.removeprefix('check_')}" for i, c, _ in IMPOSTORS],
)
def test_impostor_is_caught(impostor: Any, check: Callable[[Any, World], None], words: str, world: World) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=words):
        check(impostor, world)


def test_impostors_pass_where_they_are_honest(world: World) -> None:
    """A check that failed everybody would catch impostors too."""
    assert in_a_ball(DoesNothing())
    attack_checks.check_eps_zero_changes_nothing(DoesNothing(), world)
    attack_checks.check_together_as_alone(DoesNothing(), world)
    attack_checks.check_leaves_the_model_as_it_was(DoesNothing(), world)
    defence_checks.check_terms(PlainUnderAnotherName(), world)
    interpreter_checks.check_together_as_alone(Noise(), world)
