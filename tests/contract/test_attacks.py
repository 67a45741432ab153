"""Every registered attack, in every norm and with every listed choice, against every promise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from . import attack_checks
from .tiny import cases, option_cases
from .worlds import World, pictures, smooth

CHECKS = [check for name, check in vars(attack_checks).items() if name.startswith("check_")]
# What a choice such as loss="margin", keep="best" or mode="train" could break.
CHOICE_CHECKS = [
    attack_checks.check_same_kind_of_images,
    attack_checks.check_stays_in_the_ball,
    attack_checks.check_eps_zero_changes_nothing,
    attack_checks.check_same_stream_same_images,
    attack_checks.check_another_stream_changes_stochastic_attacks_only,
    attack_checks.check_leaves_the_model_as_it_was,
    attack_checks.check_leaves_the_model_as_it_was_after_an_exception,
    attack_checks.check_together_as_alone,
    attack_checks.check_batches_of_none_and_one,
    attack_checks.check_images_that_are_fooled_already_stay,
    attack_checks.check_stopping_early_costs_no_success,
    attack_checks.check_any_number_of_classes,
    attack_checks.check_maximise_climbs_any_objective,
    attack_checks.check_every_tensor_has_a_device,
]


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
@pytest.mark.parametrize("attack", cases("attack"))
def test_attack(attack: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(attack, world)


@pytest.mark.parametrize("check", CHOICE_CHECKS, ids=_name)
@pytest.mark.parametrize("attack", option_cases("attack"))
def test_choice(attack: Any, check: Callable[[Any, World], None], world: World) -> None:
    check(attack, world)


@pytest.mark.slow
@pytest.mark.parametrize("attack", cases("attack"))
def test_a_thousand_classes(attack: Any) -> None:
    x, y = pictures(3), torch.tensor([0, 500, 999])
    out = attack(smooth(1000), x, y)
    assert out.shape == x.shape
    assert bool(out.isfinite().all())
