import pytest
import torch
from torch import nn

from pellucid.optimisers import Adam

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


def pellucid_adam(description):
    theta = nn.Parameter(START.clone())
    moves = description.build([theta])
    places = []
    for step, g in enumerate(GRADIENTS):
        theta.grad = g.clone()
        description.prepare(moves, step)
        moves.step()
        places.append(theta.detach().clone())
    return torch.stack(places)


def test_eps_hat_is_tensorflows_adam():
    found = pellucid_adam(Adam(lr=1e-2, eps=1e-4, eps_hat=True))
    assert torch.allclose(found, tensorflow_adam(1e-2, 1e-4), rtol=1e-12, atol=0)


def test_the_two_readings_of_epsilon_differ_where_gradients_are_small():
    plain = pellucid_adam(Adam(lr=1e-2, eps=1e-4))
    assert not torch.allclose(plain[:, 2], tensorflow_adam(1e-2, 1e-4)[:, 2], rtol=1e-4)


def test_without_eps_hat_it_is_torchs_adam_with_every_field_passed_on():
    theta = nn.Parameter(START.clone())
    reference = torch.optim.Adam([theta], lr=3e-3, eps=1e-5, betas=(0.8, 0.99), weight_decay=0.1)
    places = []
    for g in GRADIENTS:
        theta.grad = g.clone()
        reference.step()
        places.append(theta.detach().clone())
    found = pellucid_adam(Adam(lr=3e-3, eps=1e-5, beta1=0.8, beta2=0.99, weight_decay=0.1))
    assert torch.equal(found, torch.stack(places))


@pytest.mark.parametrize("step", [0, 1, 99])
def test_preparing_depends_on_the_step_alone(step):
    description = Adam(eps=1e-4, eps_hat=True)
    moves = description.build([nn.Parameter(START.clone())])
    for number in (7, step):  # as after a resume: whatever was prepared before does not matter
        description.prepare(moves, number)
    assert moves.param_groups[0]["eps"] == 1e-4 / (1 - 0.999 ** (step + 1)) ** 0.5
