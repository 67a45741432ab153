"""Every registered attack, in every norm and with every listed choice, against every promise."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from . import attack_checks
from .tiny import REAL, cases, option_cases, resized
from .worlds import World, pictures, predicted, smooth

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


@pytest.mark.slow
@pytest.mark.parametrize("attack", cases("attack"))
def test_images_as_large_as_imagenets(attack: Any) -> None:
    x, y = pictures(2, torch.float32, channels=3, size=(224, 224)), torch.tensor([0, 1])
    out = attack(smooth(3, torch.float32, 3), x, y)
    assert out.shape == x.shape
    assert bool(((out >= 0) & (out <= 1)).all())
    attack_checks.assert_in_the_ball(attack, out, x)


@pytest.mark.slow
@pytest.mark.parametrize("attack", cases("attack"))
@pytest.mark.parametrize("size", [(32, 48), (50, 31)], ids=str)
def test_images_that_are_not_square(attack: Any, size: tuple[int, int]) -> None:
    x, y = pictures(3, torch.float32, channels=3, size=size), torch.arange(3)
    out = attack(smooth(3, torch.float32, 3), x, y)
    assert out.shape == x.shape
    assert bool(((out >= 0) & (out <= 1)).all())
    attack_checks.assert_in_the_ball(attack, out, x)


@pytest.mark.slow
@pytest.mark.parametrize("attack", cases("attack"))
def test_under_bfloat16_autocast(attack: Any, world: World) -> None:
    """Images stay float32 and in the ball, and the attack works about as well as without."""
    (x, y), model = world.known, world.classifier
    real = resized(attack, REAL)
    if attack_checks.in_a_ball(real):
        real = dataclasses.replace(real, eps=attack_checks.STRENGTH[real.norm])
    plain = attack_checks.run(real, model, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attack_checks.run(real, model, x, y)
    assert (out.dtype, out.shape) == (x.dtype, x.shape)
    assert bool(((out >= 0) & (out <= 1)).all())
    attack_checks.assert_in_the_ball(real, out, x)
    if attack_checks.changes_labels(attack):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as the network was when it was attacked
            under = predicted(model, out)
        fooled = [float((found != y).float().mean()) for found in (predicted(model, plain), under)]
        assert fooled[1] >= fooled[0] - 0.25, f"success {fooled[1]:.2f} under autocast, {fooled[0]:.2f} without"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attack", cases("attack"))
def test_the_same_on_cuda(attack: Any) -> None:
    """Random numbers are the same on every device; in float64 so are the images, but for rounding."""
    x, y, model = pictures(4, channels=3, size=(28, 28)), torch.arange(4) % 3, smooth(3, torch.float64, 3)
    here = attack_checks.run(attack, model, x, y)
    there = attack_checks.run(attack, smooth(3, torch.float64, 3).cuda(), x.cuda(), y.cuda())
    assert there.is_cuda
    assert float(((there.cpu() - here).abs() <= 1e-6).double().mean()) > 0.999
