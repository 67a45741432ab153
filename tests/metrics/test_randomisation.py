import copy
import math

import pytest
import torch
from scipy import stats
from torch import nn

from pellucid.errors import InputError
from pellucid.interpreters import CAM, Gradient, SmoothGrad
from pellucid.metrics import kendall_tau, model_randomisation
from pellucid.metrics.randomisation import _SIMILARITIES, _randomised, layers_in_order
from pellucid.models import RossCNN
from pellucid.rng import Stream


class Detached:
    """An interpreter that looks at the image alone."""

    def __call__(self, model, x, target, *, rng=None, create_graph=False):
        return x.sum(1)

    maps = __call__


class Constant(Detached):
    """An interpreter that says nothing."""

    def __call__(self, model, x, target, *, rng=None, create_graph=False):
        return torch.zeros_like(x)


class Noise(Detached):
    """An interpreter that draws its map."""

    def __call__(self, model, x, target, *, rng=None, create_graph=False):
        return rng.uniform(x)


class Backwards(nn.Module):
    """Layers registered from the logits to the image, one of them used by hand, and parameters of its own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.middle = nn.MultiheadAttention(6, 2, batch_first=True)
        self.first = nn.Linear(4, 6)
        self.shift = nn.Parameter(torch.linspace(0, 1, 4))

    def forward(self, x):
        tokens = self.first(x.flatten(2) + self.shift)
        return self.head(self.middle(tokens, tokens, tokens)[0].mean(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 30, 4)
    )


@pytest.fixture
def images(generator):
    return torch.rand(6, 3, 5, 6, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_the_gradient_depends_on_the_network_and_passes(network, images, order):
    found = model_randomisation(network, Gradient(), *images, order=order)
    assert found.layers == (("4", "1", "0") if order == "top_down" else ("0", "1", "4"))
    assert found.similarity.shape == (3, 6)
    assert found.similarity.dtype == torch.float64
    assert found.passed
    assert found.final.high < 0.4
    assert found.undefined == 0
    assert found.overall.value == pytest.approx(float(found.similarity.mean()))


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
@pytest.mark.parametrize("similarity", ["spearman", "kendall", "cosine"])
def test_an_interpreter_that_ignores_the_network_is_caught(network, images, order, similarity):
    found = model_randomisation(network, Detached(), *images, order=order, similarity=similarity)
    torch.testing.assert_close(found.similarity, torch.ones(3, 6, dtype=torch.float64))
    assert not found.passed
    assert found.final.value == found.overall.value == pytest.approx(1)


def test_one_that_says_nothing_does_not_pass_either(network, images):
    found = model_randomisation(network, Constant(), *images)
    assert found.undefined == 18
    assert math.isnan(found.final.value)
    assert not found.passed


def test_an_interpreters_own_noise_is_the_same_before_and_after(network, images):
    found = model_randomisation(network, Noise(), *images, rng=Stream(7), batch_size=4)
    torch.testing.assert_close(found.similarity, torch.ones(3, 6, dtype=torch.float64))


def test_nothing_depends_on_the_batch(network, images):
    whole, parts = (
        model_randomisation(network, SmoothGrad(samples=3), *images, rng=Stream(7), batch_size=size)
        for size in (100, 4)
    )
    torch.testing.assert_close(parts.similarity, whole.similarity, rtol=0, atol=1e-3)


def test_cascades_meet_where_all_is_random_and_independent_layers_do_not(network, images):
    down, up, alone = (
        model_randomisation(network, Gradient(), *images, order=order, seed=3)
        for order in ("top_down", "bottom_up", "independent")
    )
    torch.testing.assert_close(down.similarity[-1], up.similarity[-1])
    assert down.final == up.final == alone.final
    torch.testing.assert_close(alone.similarity[2], down.similarity[0])  # the logits' layer alone
    torch.testing.assert_close(alone.similarity[0], up.similarity[0])
    assert float((alone.similarity[2] - up.similarity[2]).abs().max()) > 1e-3


def test_similarities_are_those_of_maps_of_networks_randomised_by_hand(network, images):
    x, y = images
    network.eval()
    before = Gradient()(network, x, y)
    for absolute in (False, True):
        found = model_randomisation(
            network, Gradient(), x, y, similarity="kendall", absolute=absolute, seed=5, batch_size=4
        )
        seen = [
            Gradient()(state, x, y) for state in _randomised(network, ("4", "1", "0"), "top_down", "reinitialised", 5)
        ]
        for row, after in zip(found.similarity, seen, strict=True):
            a, b = (before.abs(), after.abs()) if absolute else (before, after)
            torch.testing.assert_close(row, kendall_tau(a, b))


@pytest.mark.parametrize("weights", ["reinitialised", "redrawn"])
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_only_the_layers_named_so_far_are_random(network, order, weights):
    own = {k: v.clone() for k, v in network.state_dict().items()}
    names = ("0", "1", "4") if order != "top_down" else ("4", "1", "0")
    touched = []
    for state in _randomised(network, names, order, weights, 0):
        now = state.state_dict()
        touched.append({k.partition(".")[0] for k in own if k.endswith("weight") and not torch.equal(now[k], own[k])})
    expected = [{n} if order == "independent" else set(names[: k + 1]) for k, n in enumerate(names)]
    expected += [set(names)] if order == "independent" else []
    assert [t | {"1"} for t in touched] == [e | {"1"} for e in expected]  # the scale of batch norm starts at 1 as well
    assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())


def test_reinitialised_layers_are_as_fresh_ones(network):
    network[1].running_mean += 3
    network[1].weight.data += 1
    network[0].weight.data *= 100
    *_, state = _randomised(network, ("4", "1", "0"), "top_down", "reinitialised", 0)
    assert torch.equal(state[1].running_mean, torch.zeros(8))
    assert torch.equal(state[1].weight, torch.ones(8))
    assert float(state[0].weight.detach().abs().max()) <= 1 / math.sqrt(27)
    assert float(state[4].weight.detach().abs().max()) <= 1 / math.sqrt(240)


def test_redrawn_tensors_keep_their_mean_and_spread():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 90))
    nn.init.normal_(network[1].weight, 3.0, 0.2)
    nn.init.constant_(network[1].bias, -1.5)
    (state,) = _randomised(network, ("1",), "top_down", "redrawn", 0)
    weight, own = state[1].weight.detach(), network[1].weight.detach()
    assert float(weight.mean()) == pytest.approx(3.0, abs=0.01)
    assert float(weight.std()) == pytest.approx(0.2, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([weight.flatten(), own.flatten()]))[0, 1])) < 0.05
    assert torch.equal(state[1].bias, network[1].bias)


def test_seeds_and_the_global_generator(network, images):
    torch.manual_seed(1)
    first = model_randomisation(network, Gradient(), *images, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    again = model_randomisation(network, Gradient(), *images, seed=1)
    other = model_randomisation(network, Gradient(), *images, seed=2)
    assert torch.equal(first.similarity, again.similarity)
    assert not torch.equal(first.similarity, other.similarity)
    for weights in ("reinitialised", "redrawn"):  # tensors of one size are not drawn alike
        twins = nn.Sequential(nn.Flatten(), nn.Linear(5, 5), nn.Linear(5, 5))
        *_, state = _randomised(twins, ("1", "2"), "bottom_up", weights, 0)
        assert not torch.allclose(state[1].weight, state[2].weight)


def test_the_callers_network_is_left_as_it_was(network, images):
    network.train()
    network[4].weight.requires_grad_(False)
    before, hooks = copy.deepcopy(network.state_dict()), [len(m._forward_pre_hooks) for m in network.modules()]
    model_randomisation(network, Gradient(), *images)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(m.training for m in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [True, True, True, True, False, True]
    assert [len(m._forward_pre_hooks) for m in network.modules()] == hooks
    assert all(p.grad is None for p in network.parameters())


def test_layers_stand_in_the_order_of_the_forward_pass():
    network = Backwards()
    x = torch.rand(2, 1, 2, 2)
    assert layers_in_order(network, x) == ("", "first", "middle", "middle.out_proj", "head")
    found = model_randomisation(network, Gradient(), x, torch.tensor([0, 1]))
    assert found.layers == ("head", "middle.out_proj", "middle", "first", "")
    *_, state = _randomised(network, ("",), "bottom_up", "reinitialised", 0)
    assert not torch.equal(state.shift, network.shift)  # no way to start anew: redrawn
    assert torch.equal(state.first.weight, network.first.weight)


def test_batches_of_none_and_one_and_pellucids_own_networks(images):
    x, y = images
    network = RossCNN(filters=(2, 3), hidden=8).build(3, (5, 6), 4)
    assert len(model_randomisation(network, Gradient(), x[:0], y[:0]).layers) == 7
    assert model_randomisation(network, Gradient(), x[:0], y[:0]).similarity.shape == (7, 0)
    one = model_randomisation(network, Gradient(), x[:1], y[:1])
    assert one.similarity.shape == (7, 1)
    assert one.passed == (one.final.value < 0.5)


def test_spearman_is_scipys_and_undefined_for_constants(generator):
    a = torch.randint(0, 6, (5, 40), generator=generator).float()
    b = a + torch.randint(-3, 4, (5, 40), generator=generator)
    a[4] = 0.5
    found = _SIMILARITIES["spearman"](a, b)
    for n in range(4):
        assert float(found[n]) == pytest.approx(float(stats.spearmanr(a[n], b[n]).statistic), abs=1e-12)
    assert math.isnan(found[4])


def test_cosine_by_hand():
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, -3.0], [1.0, 1.0]])
    found = _SIMILARITIES["cosine"](torch.cat([a, a[:1]]), torch.cat([b, -a[:1]]))
    assert found[0] == 0
    assert math.isnan(found[1])
    assert float(found[2]) == pytest.approx(-1)


def test_what_is_refused(network, images):
    x, y = images
    for wrong, words in (
        ({"order": "sideways"}, "order must be one of"),
        ({"similarity": "ssim"}, "similarity must be one of"),
        ({"weights": "zero"}, "weights must be one of"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(InputError, match=words):
            model_randomisation(network, Gradient(), x, y, **wrong)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        model_randomisation(network, Gradient(), 2 * x, y)
    with pytest.raises(InputError, match="one number per image"):
        model_randomisation(network, Gradient(), x, torch.stack([y, y], 1))
    with pytest.raises(InputError, match="no parameters"):
        model_randomisation(nn.Flatten(), Gradient(), x, y)
    with pytest.raises(InputError, match="linear head"):
        model_randomisation(network, CAM(), x, y)
    network.kept = network[4].weight * 2  # not a leaf: torch refuses to copy it
    with pytest.raises(InputError, match="cannot be copied"):
        model_randomisation(network, Gradient(), x, y)
