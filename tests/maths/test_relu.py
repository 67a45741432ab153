"""Another rule for ReLU inside a block: every spelling counts, nothing stays, derivatives are right."""

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.interpreters import GuidedBackprop
from pellucid.maths.relu import Guide, guided_relu, pass_through_relu, relu_replaced
from pellucid.rng import Stream


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return Stream(seed).normal(torch.empty(shape[0], 0, dtype=torch.float64), shape[1:])


SPELLINGS = {
    "module": lambda x: nn.ReLU()(x),
    "in place module": lambda x: nn.ReLU(inplace=True)(x),
    "functional": lambda x: functional.relu(x),
    "functional in place": lambda x: functional.relu(x, True),
    "functional in place by name": lambda x: functional.relu(x, inplace=True),
    "functional by name": lambda x: functional.relu(input=x),
    "torch": lambda x: torch.relu(x),
    "torch in place": lambda x: torch.relu_(x),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "torch by name": lambda x: torch.relu(input=x),
    "functional relu_": lambda x: functional.relu_(x),
}
IN_PLACE = {name for name in SPELLINGS if "in place" in name or "_" in name}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_is_replaced_and_counted(spelled):
    x = drawn(3, 4)
    with relu_replaced(lambda number, values: values * (10 + number)) as met:
        first, second = spelled(x.clone()), spelled(x.clone())
    torch.testing.assert_close(first, 10 * x)
    torch.testing.assert_close(second, 11 * x)
    assert met.count == 2
    torch.testing.assert_close(spelled(x.clone()), x.clamp(min=0))


@pytest.mark.parametrize("name", SPELLINGS)
def test_in_place_and_only_then_the_tensor_changes_and_the_derivative_is_the_rules(name):
    x = drawn(3, 4).requires_grad_(True)
    held = x * 1
    with relu_replaced(lambda _, values: values.square()):
        out = SPELLINGS[name](held)
    assert torch.equal(out, x.square())
    assert torch.equal(held, x.square() if name in IN_PLACE else x)
    (slope,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(slope, 2 * x)


def test_a_shared_module_counts_at_every_call_and_other_activations_are_left_alone():
    shared, seen = nn.ReLU(), []

    def rule(number: int, values: Tensor) -> Tensor:
        seen.append(number)
        return values + number

    network = nn.Sequential(shared, nn.Identity(), shared, nn.LeakyReLU(0.5), nn.ReLU6(), shared)
    with relu_replaced(rule) as met:
        out = network(torch.tensor([-4.0, 2.0]))
    assert (seen, met.count) == ([0, 1, 2], 3)
    assert out.tolist() == [2.0, 5.0]  # -4 -> -4 -> -3 -> -1.5 -> 0 -> 2; 2 -> 2 -> 3 -> 3 -> 3 -> 5


def test_nothing_stays_after_an_exception_and_blocks_nest():
    with pytest.raises(RuntimeError, match="broke"), relu_replaced(lambda _, values: values):
        raise RuntimeError("broke")
    x = drawn(2, 3)
    with relu_replaced(lambda _, values: values + 1) as outer:
        with relu_replaced(lambda _, values: values + 2) as inner:
            assert torch.equal(functional.relu(x), x + 2)
        assert torch.equal(functional.relu(x), x + 1)
    assert (outer.count, inner.count) == (1, 1)
    assert torch.equal(functional.relu(x), x.clamp(min=0))


def test_nothing_stays_where_the_rule_itself_breaks():
    def breaks(number: int, values: Tensor) -> Tensor:
        raise ValueError("the rule broke")

    x = drawn(2, 3)
    with pytest.raises(ValueError, match="the rule broke"), relu_replaced(breaks):
        functional.relu(x)
    for spelled in SPELLINGS.values():
        assert torch.equal(spelled(x.clone()), x.clamp(min=0))


def test_a_block_is_for_its_own_thread_only():
    x, seen = drawn(2, 3), {}
    with relu_replaced(lambda _, values: 10 * values) as met:
        other = threading.Thread(target=lambda: seen.update(out=functional.relu(x)))
        other.start()
        other.join()
        assert torch.equal(seen["out"], x.clamp(min=0))
        assert met.count == 0
        assert torch.equal(functional.relu(x), 10 * x)


def test_a_rules_own_relus_go_to_the_block_outside():
    x = drawn(2, 3)
    with (
        relu_replaced(lambda _, values: values + 100) as outer,
        relu_replaced(lambda _, values: 3 * torch.relu(values)) as inner,
    ):
        assert torch.equal(functional.relu(x), 3 * (x + 100))
    assert (outer.count, inner.count) == (1, 1)


def test_the_guided_rule_is_its_formula_layer_by_layer():
    weights = [drawn(5, 4, seed=1), drawn(6, 5, seed=2), drawn(2, 6, seed=3)]
    x = drawn(8, 4, seed=4).requires_grad_(True)
    guide, values, inputs = Guide(), x, []
    for weight in weights[:-1]:
        values = guided_relu(values @ weight.T, guide)
    found = torch.autograd.grad((values @ weights[-1].T)[:, 1].sum(), x)[0]
    at = x.detach()
    for weight in weights[:-1]:
        inputs.append(at @ weight.T)
        at = inputs[-1].clamp(min=0)
    back = weights[-1][1].expand(8, 6)
    for weight, entered in zip(reversed(weights[:-1]), reversed(inputs)):
        back = (back.clamp(min=0) * (entered > 0)) @ weight
    torch.testing.assert_close(found, back)


def test_once_the_guide_is_off_the_rule_is_relus_own():
    x, guide = drawn(5, 4).requires_grad_(True), Guide()
    out = guided_relu(x, guide)
    upstream = drawn(5, 4, seed=1)
    guided = torch.autograd.grad(out, x, upstream, retain_graph=True)[0]
    guide.active = False
    plain = torch.autograd.grad(out, x, upstream)[0]
    torch.testing.assert_close(plain, upstream * (x > 0))
    assert not torch.equal(guided, plain)


def test_derivatives_of_guided_maps_are_right():
    first, second, last = drawn(6, 3, seed=5), drawn(5, 6, seed=6), drawn(2, 5, seed=7)

    def maps(x: Tensor, weight: Tensor) -> Tensor:
        guide = Guide()
        hidden = guided_relu(functional.softplus(x @ weight.T) - 0.7, guide)
        logits = functional.softplus(hidden @ second.T) @ last.T
        (slope,) = torch.autograd.grad(logits[:, 0].sum(), x, create_graph=True)
        guide.active = False
        return slope

    given = (drawn(2, 3, seed=8).requires_grad_(True), first.requires_grad_(True))
    assert torch.autograd.gradcheck(maps, given)


def one_relu() -> nn.Module:
    """A network in which all activations but one are smooth, so that its guided maps have derivatives."""
    parts = (nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.Softplus())
    network = nn.Sequential(nn.Flatten(), *parts, nn.Linear(4, 3)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.7 + 0.3).view_as(p))
    return network


def test_derivatives_of_guided_backpropagation_in_the_image_and_every_weight():
    """Through the interpreter, which has to switch the rule off once the map is made."""
    network, target = one_relu(), torch.tensor([0, 1, 2, 0])
    x = drawn(4, 1, 2, 3, seed=9).sigmoid().requires_grad_(True)
    names = [name for name, _ in network.named_parameters()]

    def maps(images: Tensor, *weights: Tensor) -> Tensor:
        class Bound(nn.Module):
            def forward(self, values: Tensor) -> Tensor:
                return torch.func.functional_call(network, dict(zip(names, weights)), (values,))

        return GuidedBackprop()(Bound(), images, target, create_graph=True)

    weights = [p.detach().clone().requires_grad_(True) for p in network.parameters()]
    slopes = torch.autograd.grad(maps(x, *weights).square().sum(), weights[:4])
    assert all(float(slope.abs().max()) > 1e-3 for slope in slopes), "there is something to get wrong"
    assert torch.autograd.gradcheck(maps, (x, *weights))


def test_the_fake_relu_lets_everything_through():
    x = drawn(4, 4).requires_grad_(True)
    out = pass_through_relu(x)
    torch.testing.assert_close(out, x.clamp(min=0))
    upstream = drawn(4, 4, seed=1)
    assert torch.equal(torch.autograd.grad(out, x, upstream)[0], upstream)
