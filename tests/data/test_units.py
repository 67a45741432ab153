import pytest
import torch

from pellucid.data import converted_eps, converted_weight
from pellucid.errors import InputError

RANGE = (-2.0, 3.5)


def test_a_converted_penalty_is_the_same_number():
    low, high = RANGE
    v = (low + (high - low) * torch.rand(2, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    x = ((v.detach() - low) / (high - low)).requires_grad_()
    slopes = torch.tensor([1.0, -2.0, 0.5])
    theirs = torch.autograd.grad((slopes * v.sin()).sum(), v)[0].square().sum() * 19.5
    ours = torch.autograd.grad((slopes * (low + (high - low) * x).sin()).sum(), x)[0].square().sum()
    assert float(ours * converted_weight(19.5, RANGE).ours) == pytest.approx(float(theirs), rel=1e-5)


def test_a_converted_step_is_the_same_step():
    low, high = RANGE
    assert low + (high - low) * (0.25 + converted_eps(0.3, RANGE).ours) == pytest.approx(
        low + 0.25 * (high - low) + 0.3
    )


def test_both_numbers_are_shown():
    assert str(converted_eps(0.3, RANGE)) == "eps 0.3 on [-2, 3.5], 0.05455 on [0, 1]"
    assert str(converted_weight(1.0, RANGE, "gamma")) == "gamma 1 on [-2, 3.5], 0.03306 on [0, 1]"
    assert converted_eps(0.3, (0.0, 1.0)).ours == 0.3


def test_a_range_needs_a_width():
    with pytest.raises(InputError, match="needs a width"):
        converted_eps(0.3, (1.0, 1.0))
