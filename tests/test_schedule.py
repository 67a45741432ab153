import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.schedule import Cosine, OneCycle, Ramp, Schedule, StepDecay
from pellucid.spec import digest, from_dict, to_dict

LR = 0.3


def values(ramp: Ramp, *progress: float) -> list[float]:
    return [ramp(Context(progress=p)) for p in progress]


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The learning rates of a run, asked for from its end: what was asked before must not matter."""
    asked = [LR * schedule.factor(Context(progress=step / steps, step=step)) for step in reversed(range(steps))]
    return asked[::-1]


def torchs(make, steps: int) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, found = make(optimiser), []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OneCycleLR: one step beyond its last
            scheduler.step()
    return found


def test_linear_between_two_shares_constant_outside():
    ramp = Ramp(start=0.1, stop=0.5, begin=0.25, until=0.75)
    assert values(ramp, 0, 0.25, 0.5, 0.75, 1) == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.5])
    assert values(ramp, 0, 0.25)[0] == 0.1  # exactly: an attack at exactly 0 is not run


def test_may_fall():
    assert values(Ramp(start=1.0, stop=0.0), 0, 0.5, 1) == pytest.approx([1, 0.5, 0])


def test_a_step_where_begin_is_until():
    assert values(Ramp(start=0.0, stop=0.3, begin=0.5, until=0.5), 0.49, 0.5, 0.51) == [0, 0.3, 0.3]
    assert values(Ramp(start=0.0, stop=0.3, begin=0, until=0), 0, 1) == [0.3, 0.3]


def test_the_ends_are_exact():
    ramp = Ramp(start=0.0, stop=8 / 255, begin=0.1, until=0.9)
    assert values(ramp, 0.1, 0.9, 1.0) == [0.0, 8 / 255, 8 / 255]


def test_a_ramp_in_steps_does_not_look_at_the_share():
    ramp = Ramp(start=0.0, stop=0.3, begin=2000, until=10000, unit="steps")
    found = [ramp(Context(step=step, progress=share)) for step, share in ((1999, 1), (2000, 1), (4000, 0), (10000, 0))]
    assert found == pytest.approx([0.0, 0.0, 0.075, 0.3])
    assert found[1] == 0.0
    assert found[3] == 0.3
    assert digest(ramp) != digest(Ramp(start=0.0, stop=0.3))


def test_refuses_to_end_before_it_begins():
    with pytest.raises(SpecError, match="end after it begins"):
        Ramp(start=0.0, stop=1.0, begin=0.6, until=0.5)
    with pytest.raises(SpecError, match="until"):
        Ramp(start=0.0, stop=1.0, until=1.5)
    with pytest.raises(SpecError, match="end after it begins"):
        Ramp(start=0.0, stop=1.0, begin=20, until=10, unit="steps")
    with pytest.raises(SpecError, match="begin"):
        Ramp(start=0.0, stop=1.0, begin=-1, unit="steps")


def test_comes_back_from_its_dictionary():
    ramp = Ramp(start=0, stop="8/255", begin=0.2)
    assert from_dict(to_dict(ramp)) == ramp
    assert digest(from_dict(to_dict(ramp))) == digest(ramp)


@pytest.mark.parametrize("steps", [10, 37, 1000])
def test_step_decay_is_torchs_multi_step(steps):
    at = (3 * steps // 10, 7 * steps // 10)
    expected = torchs(lambda o: lr_scheduler.MultiStepLR(o, milestones=list(at), gamma=0.1), steps)
    assert len({round(lr, 9) for lr in expected}) == 3
    by_steps = StepDecay(at=at, factors=(0.1, 0.01), unit="steps")
    by_share = StepDecay(at=[a / steps for a in at], factors=(0.1, 0.01))
    assert rates(by_steps, steps) == pytest.approx(expected)
    assert rates(by_share, steps) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 10, 37])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_is_torchs_cosine_annealing(steps, floor):
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=steps, eta_min=floor * LR), steps)
    assert rates(Cosine(floor=floor), steps) == pytest.approx(expected)


def test_cosine_anneals_what_the_warmup_leaves():
    after = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30), 30)
    assert rates(Cosine(warmup=0.25), 40) == pytest.approx([LR * step / 10 for step in range(10)] + after)


def test_the_ends_of_a_cosine():
    assert Cosine(floor=0.2).factor(Context(progress=1.0)) == pytest.approx(0.2)
    assert Cosine(warmup=1.0).factor(Context(progress=1.0)) == 1


@pytest.mark.parametrize("steps", [7, 10, 37, 1000])
@pytest.mark.parametrize(("warm", "start", "final"), [(0.3, 25.0, 1e4), (0.5, 10.0, 100.0), (0.2, 2.0, 7.0)])
def test_one_cycle_is_torchs(steps, warm, start, final):
    expected = torchs(
        lambda o: lr_scheduler.OneCycleLR(
            o, LR, steps, pct_start=warm, div_factor=start, final_div_factor=final, cycle_momentum=False
        ),
        steps,
    )
    assert rates(OneCycle(warm=warm, start=start, final=final), steps) == pytest.approx(expected)


def test_one_cycle_defaults_are_torchs():
    expected = torchs(lambda o: lr_scheduler.OneCycleLR(o, LR, 50), 50)
    assert rates(OneCycle(), 50) == pytest.approx(expected)


@pytest.mark.parametrize("warm", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_few_steps_stays_between_its_ends(warm, steps):
    cycle = OneCycle(warm=warm)
    assert all(LR / 25e4 <= rate <= LR * (1 + 1e-12) for rate in rates(cycle, steps))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"at": (0.5, 0.4), "factors": (0.1, 0.01)}, "ascend"),
        ({"at": (0.5, 0.5), "factors": (0.1, 0.01)}, "ascend"),
        ({"at": (-0.5,), "factors": (0.1,)}, "ascend"),
        ({"at": (0.5,), "factors": (0.1, 0.01)}, "one of factors"),
        ({"at": (), "factors": ()}, "one of factors"),
        ({"at": (5,), "factors": (0.1,)}, "unit=steps"),
        ({"at": (0.5,), "factors": (-0.1,)}, "at least 0"),
    ],
)
def test_step_decay_refuses(fields, word):
    with pytest.raises(SpecError, match=word):
        StepDecay(**fields)
