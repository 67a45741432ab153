import copy

import pytest
import torch
from torch import nn

from pellucid.averaging import EMA, SWA, refresh_statistics
from pellucid.models.classifier import Classifier
from pellucid.protocols import Context
from pellucid.rng import Stream

STEPS = 40


class Net(nn.Module):
    """A layer, batch normalisation with its counter, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean((2, 3)) * self.scale


def walk(network: nn.Module, step: int) -> None:
    """Stand in for a training step: weights and running statistics go anywhere."""
    with torch.no_grad():
        for place, value in enumerate(network.state_dict().values()):
            if value.is_floating_point():
                value.copy_(Stream(place).normal(value.new_zeros(1, value.numel()), step=step).view(value.shape))
            else:
                value.add_(1)


def trained(average, steps: int, until: int | None = None):
    """Return the average after `until` steps of a run of `steps`, and every state on the way."""
    network = Net()
    averaged, states = average.build(network), []
    for step in range(steps if until is None else until):
        walk(network, step)
        average.update(averaged, network, Context(progress=step / steps, step=step))
        states.append({k: v.clone() for k, v in network.state_dict().items()})
    return averaged, states


@pytest.mark.parametrize("average", [EMA(decay=0.9), EMA(decay=0.2), EMA(decay=0.9, warmup=False)], ids=str)
def test_ema_by_hand(average):
    averaged, states = trained(average, STEPS)
    for name, found in averaged.module.state_dict().items():
        expected = states[0][name].double()
        for t, state in enumerate(states[1:], start=1):
            decay = min(average.decay, (1 + t) / (10 + t)) if average.warmup else average.decay
            expected = decay * expected + (1 - decay) * state[name].double()
        if found.is_floating_point():  # running means and variances too
            assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-6), name
        else:
            assert torch.equal(found, states[-1][name])


def test_the_warmup_of_ema_ends_at_its_decay():
    """With weights 0, then 1 for ever, 1 - average is the product of the decays: at 0.5 the warm-up lasts to t = 8."""
    network = nn.Linear(1, 1, bias=False).double()
    average = EMA(decay=0.5)
    averaged = average.build(network)
    left = 1.0
    for t in range(12):
        nn.init.constant_(network.weight, float(t > 0))
        average.update(averaged, network, Context(step=t))
        left *= 1.0 if t == 0 else (1 + t) / (10 + t) if t < 8 else 0.5
    assert 1 - float(averaged.module.weight.detach()) == pytest.approx(left, rel=1e-9)


def test_swa_is_the_mean_of_the_steps_that_count():
    averaged, states = trained(SWA(begin=0.5, every=5), STEPS)
    counted = [states[number - 1] for number in (25, 30, 35, 40)]
    for name, _ in averaged.module.named_parameters():
        expected = torch.stack([state[name].double() for state in counted]).mean(0)
        assert torch.allclose(averaged.module.state_dict()[name].double(), expected, rtol=1e-5, atol=1e-6), name
    assert int(averaged.n_averaged) == 4


def test_swa_from_the_start_of_every_step_is_the_plain_mean():
    averaged, states = trained(SWA(begin=0, every=1), 10)
    expected = torch.stack([state["conv.weight"].double() for state in states]).mean(0)
    assert torch.allclose(averaged.module.conv.weight.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("average", [SWA(begin=0.9, every=100), SWA(begin=1.0, every=1), EMA(decay=0.0)], ids=str)
def test_an_average_of_nothing_else_is_the_network_itself(average):
    averaged, states = trained(average, STEPS)
    for name, value in averaged.module.state_dict().items():
        assert torch.equal(value, states[-1][name]), name


@pytest.mark.parametrize(
    "average", [EMA(), EMA(warmup=False), SWA(begin=0.5, every=3), SWA(begin=0.9, every=1)], ids=str
)
@pytest.mark.parametrize("interrupted", [1, 17, 30])
def test_its_state_is_tensors_from_which_it_goes_on_exactly(average, interrupted):
    undisturbed, states = trained(average, STEPS)
    first, _ = trained(average, STEPS, until=interrupted)
    kept = {k: v.clone() for k, v in first.state_dict().items()}
    network = Net()
    again = average.build(network)
    again.load_state_dict(kept)
    for step in range(interrupted, STEPS):
        network.load_state_dict(states[step])
        average.update(again, network, Context(progress=step / STEPS, step=step))
    assert again.state_dict().keys() == undisturbed.state_dict().keys()
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("average", [EMA(), SWA()], ids=str)
def test_the_average_is_a_copy_for_evaluation(average):
    network = Net().train()
    averaged = average.build(network)
    assert network.training
    assert not averaged.module.training
    mine = {p.data_ptr() for p in network.state_dict().values()}
    assert not mine & {p.data_ptr() for p in averaged.module.state_dict().values()}
    average.update(averaged, network, Context())
    assert network.training
    assert not averaged.module.training


def test_refreshed_statistics_are_those_of_the_images():
    """All batches of one size: the running mean is that of all images, the variance the mean of the batches' own."""
    network = Net().double().eval()
    walk(network, 7)
    x = Stream(1).uniform(torch.empty(12, 0, dtype=torch.float64), (1, 6, 6))
    with torch.no_grad():
        f = network.conv(x)
    refresh_statistics(network, x.split(4))
    means = f.mean((0, 2, 3))
    variances = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in f.split(4)]).mean(0)
    assert torch.allclose(network.norm.running_mean, means, rtol=1e-10)
    assert torch.allclose(network.norm.running_var, variances, rtol=1e-10)
    assert not network.training
    assert network.norm.momentum == 0.1


def test_refreshing_moves_nothing_but_batch_normalisation():
    network = Net()
    before = copy.deepcopy(network.state_dict())
    refresh_statistics(network, [torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))])
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_what_normalises_the_images_is_not_averaged_away():
    """A network's own mean and std are buffers: they stay what they are to the last bit."""

    class Flat(Classifier):
        def __init__(self) -> None:
            super().__init__(mean=(0.1307,), std=(0.3081,))
            self.head = nn.Linear(1, 2)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x

    network = Flat()
    average = EMA()
    averaged = average.build(network)
    for step in range(20):
        average.update(averaged, network, Context(step=step))
    for name, value in network.state_dict().items():
        assert torch.equal(averaged.module.state_dict()[name], value), name
