import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.interpreters import GuidedBackprop
from pellucid.maths.relu import Guide, guided_relu, pass_through_relu, relu_replaced

SPELLINGS = {
    "nn.ReLU": lambda x: nn.ReLU()(x),
    "nn.ReLU in place": lambda x: nn.ReLU(inplace=True)(x),
    "F.relu": functional.relu,
    "F.relu, inplace by position": lambda x: functional.relu(x, True),
    "F.relu, inplace by keyword": lambda x: functional.relu(x, inplace=True),
    "F.relu, input by keyword": lambda x: functional.relu(input=x, inplace=False),
    "F.relu_": functional.relu_,
    "torch.relu": torch.relu,
    "torch.relu, by keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
}
IN_PLACE = {name for name in SPELLINGS if "_" in name or "inplace by" in name or "in place" in name}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_replaced_and_counted_once(name):
    values = torch.tensor([-2.0, 0.5, 3.0])
    x = values.clone()
    with relu_replaced(lambda _, x: 10 * x + 1) as met:
        out = SPELLINGS[name](x)
    assert met.count == 1
    assert out.tolist() == [-19.0, 6.0, 31.0]
    assert x.tolist() == (out if name in IN_PLACE else values).tolist()


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_derivative_is_that_of_the_rule_also_in_place(name):
    leaf = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    with relu_replaced(lambda _, x: x.square()):
        out = SPELLINGS[name](leaf * 1)
    assert torch.autograd.grad(out.sum(), leaf)[0].tolist() == [-4.0, 1.0, 6.0]


def test_a_shared_module_counts_at_every_call_and_others_are_left_alone():
    shared, seen = nn.ReLU(), []

    def rule(number, x):
        seen.append(number)
        return x + number

    network = nn.Sequential(shared, nn.Identity(), shared, nn.LeakyReLU(0.5), nn.ReLU6(), shared)
    with relu_replaced(rule) as met:
        out = network(torch.tensor([-4.0, 2.0]))
    assert (seen, met.count) == ([0, 1, 2], 3)
    assert out.tolist() == [2.0, 5.0]  # -4 -> -4 -> -3 -> -1.5 -> 0 -> 2; 2 -> 2 -> 3 -> 3 -> 3 -> 5


def test_nothing_stays_installed_neither_after_the_block_nor_after_an_exception():
    x = torch.tensor([-1.0, 1.0])

    def breaks(number, x):
        raise ValueError("the rule broke")

    with relu_replaced(lambda _, x: x):
        assert functional.relu(x).tolist() == [-1.0, 1.0]
    assert functional.relu(x).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="the rule broke"), relu_replaced(breaks):
        functional.relu(x)
    for relu in SPELLINGS.values():
        assert relu(x.clone()).tolist() == [0.0, 1.0]


def test_nested_blocks_the_inner_rule_first_and_its_own_relus_to_the_outer():
    x = torch.tensor([-1.0, 2.0])
    with relu_replaced(lambda _, x: x + 100) as outer:
        with relu_replaced(lambda _, x: 3 * x) as inner:
            assert functional.relu(x).tolist() == [-3.0, 6.0]
        assert (outer.count, inner.count) == (0, 1)
        with relu_replaced(lambda _, x: 3 * torch.relu(x)) as inner:
            assert functional.relu(x).tolist() == [297.0, 306.0]
        assert (outer.count, inner.count) == (1, 1)
        assert functional.relu(x).tolist() == [99.0, 102.0]
    assert outer.count == 2


@pytest.fixture
def three_layers(generator):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [(normal(7, 6), normal(7)), (normal(8, 7), normal(8)), (normal(3, 8), normal(3))]


def slow_backward(layers, x, c, guided):
    """The gradient of logit c, or its guided version, one unit at a time."""
    values, before = x.tolist(), []
    for weight, bias in layers[:-1]:
        before.append([sum(w * v for w, v in zip(row, values)) + b for row, b in zip(weight.tolist(), bias.tolist())])
        values = [max(a, 0.0) for a in before[-1]]
    upstream = layers[-1][0][c].tolist()
    for (weight, _), active in zip(layers[-2::-1], before[::-1]):
        passed = [0.0 if a <= 0 or (guided and r < 0) else r for a, r in zip(active, upstream)]
        upstream = [sum(passed[k] * weight[k, i].item() for k in range(len(weight))) for i in range(weight.shape[1])]
    return torch.tensor(upstream, dtype=torch.float64)


@pytest.mark.parametrize("guided", [True, False])
def test_the_guided_rule_on_three_layers_by_hand(three_layers, generator, guided):
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64).requires_grad_(True)
    target = torch.arange(9) % 3

    def logits(values):
        for weight, bias in three_layers[:-1]:
            values = functional.relu(values @ weight.T + bias)
        return values @ three_layers[-1][0].T + three_layers[-1][1]

    plain = logits(x)
    with relu_replaced(lambda _, v: guided_relu(v, Guide(guided))) as met:
        own = logits(x)
        (maps,) = torch.autograd.grad(own.gather(1, target[:, None]).sum(), x)
    assert met.count == 2
    torch.testing.assert_close(own, plain, rtol=0, atol=0)  # forward it is ReLU
    expected = torch.stack([slow_backward(three_layers, row, int(c), guided) for row, c in zip(x.detach(), target)])
    torch.testing.assert_close(maps, expected, rtol=1e-12, atol=1e-12)
    other = torch.stack([slow_backward(three_layers, row, int(c), not guided) for row, c in zip(x.detach(), target)])
    assert float((maps - other).abs().amax(1).min()) > 0.1


def one_relu():
    """A network in which all but one activation are smooth, so that its maps have derivatives."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.Softplus(),
        nn.Linear(4, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.7 + 0.3).view_as(p))
    return network


def test_derivatives_of_a_guided_map_in_the_image_and_in_every_weight(generator):
    network = one_relu()
    x = torch.rand(4, 1, 2, 3, generator=generator, dtype=torch.float64)
    target, names = torch.tensor([0, 1, 2, 0]), [name for name, _ in network.named_parameters()]

    def maps(images, *weights):
        bound = dict(zip(names, weights))

        class Bound(nn.Module):
            def forward(self, values):
                return torch.func.functional_call(network, bound, (values,))

        return GuidedBackprop()(Bound(), images, target, create_graph=True)

    weights = [p.detach().clone().requires_grad_(True) for p in network.parameters()]
    slopes = torch.autograd.grad(maps(x.requires_grad_(True), *weights).square().sum(), weights[:4])
    assert all(float(s.abs().max()) > 1e-3 for s in slopes)  # there is something to get wrong
    assert torch.autograd.gradcheck(maps, (x, *weights), fast_mode=False)


def test_the_pass_through_rule_is_relu_forward_and_lets_everything_back(generator):
    x = torch.randn(20, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(20, generator=generator, dtype=torch.float64)
    out = pass_through_relu(x)
    assert torch.equal(out, functional.relu(x))
    assert torch.equal(torch.autograd.grad(out, x, upstream)[0], upstream)
