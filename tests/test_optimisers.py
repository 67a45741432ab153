import numpy as np
import pytest
import torch
from torch import nn

from pellucid.errors import SpecError
from pellucid.optimisers import SGD, Adam, RMSProp
from pellucid.protocols import Context
from pellucid.schedule import StepDecay

GRADIENTS = torch.tensor(
    [[0.5, -1e-3, 2e-5], [0.1, 2e-3, -1e-5], [-0.4, 0.0, 3e-5], [0.3, 1e-3, 0.0], [1.0, -5e-3, 1e-4]],
    dtype=torch.float64,
)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def tensorflow_adam(lr, eps, beta1=0.9, beta2=0.999):
    """The update of tf.train.AdamOptimizer as its documentation prints it: eps is added before the correction."""
    theta, m, v = START.clone(), torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    places = []
    for t, g in enumerate(GRADIENTS, start=1):
        rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        theta = theta - rate * m / (v.sqrt() + eps)
        places.append(theta)
    return torch.stack(places)


def at(step):
    return Context(step=step, progress=step / len(GRADIENTS))


def travelled(description):
    theta = nn.Parameter(START.clone())
    moves = description.build([theta])
    places = []
    for step, g in enumerate(GRADIENTS):
        theta.grad = g.clone()
        description.prepare(moves, at(step))
        moves.step()
        places.append(theta.detach().clone())
    return torch.stack(places)


def torchs(kind, **fields):
    theta = nn.Parameter(START.clone())
    reference = kind([theta], **fields)
    places = []
    for g in GRADIENTS:
        theta.grad = g.clone()
        reference.step()
        places.append(theta.detach().clone())
    return torch.stack(places)


def test_eps_hat_is_tensorflows_adam():
    found = travelled(Adam(lr=1e-2, eps=1e-4, eps_hat=True))
    assert torch.allclose(found, tensorflow_adam(1e-2, 1e-4), rtol=1e-12, atol=0)


def test_the_two_readings_of_epsilon_differ_where_gradients_are_small():
    plain = travelled(Adam(lr=1e-2, eps=1e-4))
    assert not torch.allclose(plain[:, 2], tensorflow_adam(1e-2, 1e-4)[:, 2], rtol=1e-4)


def test_without_eps_hat_it_is_torchs_adam_with_every_field_passed_on():
    expected = torchs(torch.optim.Adam, lr=3e-3, eps=1e-5, betas=(0.8, 0.99), weight_decay=0.1)
    found = travelled(Adam(lr=3e-3, eps=1e-5, beta1=0.8, beta2=0.99, weight_decay=0.1))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("step", [0, 1, 99])
def test_preparing_depends_on_the_step_alone(step):
    description = Adam(eps=1e-4, eps_hat=True)
    moves = description.build([nn.Parameter(START.clone())])
    for number in (7, step):  # as after a resume: whatever was prepared before does not matter
        description.prepare(moves, at(number))
    assert moves.param_groups[0]["eps"] == 1e-4 / (1 - 0.999 ** (step + 1)) ** 0.5


def tensorflow_rmsprop(rates, decay, eps, momentum):
    """ApplyRMSProp of TensorFlow, whose slot "rms" begins at one and "momentum" at zero."""
    theta, rms, velocity = START.numpy().copy(), np.ones(3), np.zeros(3)
    places = []
    for rate, g in zip(rates, GRADIENTS.numpy()):
        rms = decay * rms + (1 - decay) * g**2
        velocity = momentum * velocity + rate * g / np.sqrt(rms + eps)
        theta = theta - velocity
        places.append(theta)
    return torch.from_numpy(np.stack(places))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_eps_inside_is_tensorflows_rmsprop(momentum):
    found = travelled(RMSProp(lr=1e-2, decay=0.8, eps=1e-2, momentum=momentum, eps_inside=True))
    assert torch.allclose(found, tensorflow_rmsprop([1e-2] * 5, 0.8, 1e-2, momentum), rtol=1e-12, atol=0)


def test_tensorflows_momentum_remembers_the_rates_of_earlier_steps():
    drop = StepDecay(at=(3,), factors=(0.1,), unit="steps")
    found = travelled(RMSProp(lr=1e-2, momentum=0.9, eps_inside=True, schedule=drop))
    rates = [1e-2] * 3 + [1e-3] * 2
    assert torch.allclose(found, tensorflow_rmsprop(rates, 0.9, 1e-8, 0.9), rtol=1e-12, atol=0)


def test_otherwise_it_is_torchs_rmsprop_with_every_field_passed_on():
    expected = torchs(torch.optim.RMSprop, lr=1e-2, alpha=0.8, eps=1e-3, momentum=0.5)
    assert torch.equal(travelled(RMSProp(lr=1e-2, decay=0.8, eps=1e-3, momentum=0.5)), expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_torchs_sgd_with_every_field_passed_on(nesterov):
    expected = torchs(torch.optim.SGD, lr=0.1, momentum=0.7, weight_decay=0.01, nesterov=nesterov)
    assert torch.equal(travelled(SGD(lr=0.1, momentum=0.7, weight_decay=0.01, nesterov=nesterov)), expected)


def test_sgd_by_hand():
    theta, b, places = START.numpy().copy(), np.zeros(3), []
    for g in GRADIENTS.numpy():
        b = 0.9 * b + g + 5e-4 * theta
        theta = theta - 0.01 * b
        places.append(theta)
    assert torch.allclose(travelled(SGD()), torch.from_numpy(np.stack(places)), rtol=1e-12, atol=0)


def test_nesterov_needs_momentum():
    with pytest.raises(SpecError, match="momentum above 0"):
        SGD(momentum=0, nesterov=True)


EVERY = [Adam(eps_hat=True), Adam(), RMSProp(), RMSProp(momentum=0.9, eps_inside=True), SGD(), SGD(momentum=0)]


@pytest.mark.parametrize("description", EVERY, ids=str)
def test_a_schedule_multiplies_the_rate_of_each_step(description):
    scheduled = type(description)(
        **{f: getattr(description, f) for f in description.__dataclass_fields__ if f != "schedule"},
        schedule=StepDecay(at=(0.4,), factors=(0.5,)),
    )
    moves = scheduled.build([nn.Parameter(START.clone())])
    found = []
    for step in range(5):
        scheduled.prepare(moves, at(step))
        found.append(moves.param_groups[0]["lr"] / description.lr)
    assert found == [1, 1, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("description", EVERY, ids=str)
def test_the_state_is_tensors_from_which_it_goes_on_exactly(description):
    undisturbed = travelled(description)[-1]
    theta = nn.Parameter(START.clone())
    moves = description.build([theta])
    for step, g in enumerate(GRADIENTS):
        if step == 2:
            state = {i: dict(s) for i, s in moves.state_dict()["state"].items()}
            assert all(isinstance(v, torch.Tensor) for s in state.values() for v in s.values())
            theta = nn.Parameter(theta.detach().clone())
            moves = description.build([theta])
            moves.load_state_dict({"state": state, "param_groups": moves.state_dict()["param_groups"]})
        theta.grad = g.clone()
        description.prepare(moves, at(step))
        moves.step()
    assert torch.equal(theta.detach(), undisturbed)


def test_tensorflows_rmsprop_leaves_alone_what_has_no_gradient():
    still, moving = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    description = RMSProp(eps_inside=True)
    moves = description.build([still, moving])
    moving.grad = GRADIENTS[0].clone()
    moves.step()
    assert torch.equal(still, START)
    assert not torch.equal(moving, START)
