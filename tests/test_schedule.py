import pytest

from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.schedule import Ramp
from pellucid.spec import digest, from_dict, to_dict


def values(ramp: Ramp, *progress: float) -> list[float]:
    return [ramp(Context(progress=p)) for p in progress]


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


def test_refuses_to_end_before_it_begins():
    with pytest.raises(SpecError, match="end after it begins"):
        Ramp(start=0.0, stop=1.0, begin=0.6, until=0.5)
    with pytest.raises(SpecError, match="until"):
        Ramp(start=0.0, stop=1.0, until=1.5)


def test_comes_back_from_its_dictionary():
    ramp = Ramp(start=0, stop="8/255", begin=0.2)
    assert from_dict(to_dict(ramp)) == ramp
    assert digest(from_dict(to_dict(ramp))) == digest(ramp)
