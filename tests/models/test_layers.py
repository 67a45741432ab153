"""Looking at a layer while the network runs: values replaced, graphs cut, hooks gone."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.models.layers import (
    first_tensor,
    input_of_last_linear,
    layer_of,
    outputs_of,
    reaches,
    run_with_graph,
    run_with_leaf,
)


class Named(NamedTuple):
    hidden: Tensor
    more: int


class Gives(nn.Module):
    """A layer whose output wraps a tensor."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(2 * x)


class Takes(nn.Module):
    """A network around such a layer; unwraps it, and works in place on it."""

    def __init__(self, wrap: Any, unwrap: Any) -> None:
        super().__init__()
        self.before, self.layer, self.last, self.unwrap = nn.Linear(3, 3), Gives(wrap), nn.Linear(3, 2), unwrap

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.unwrap(self.layer(self.before(x))).mul_(3))


WRAPS = {
    "tensor": (lambda t: t, lambda o: o),
    "tuple": (lambda t: (t, None), lambda o: o[0]),
    "list": (lambda t: [t, 5], lambda o: o[0]),
    "nested": (lambda t: ((t,), "rest"), lambda o: o[0][0]),
    "table": (lambda t: OrderedDict(hidden=t, more=None), lambda o: o["hidden"]),
    "table of tuples": (lambda t: {"maps": (t, "rest")}, lambda o: o["maps"][0]),
    "named tuple": (lambda t: Named(t, 5), lambda o: o.hidden),
}


@pytest.mark.parametrize(("wrap", "unwrap"), WRAPS.values(), ids=WRAPS.keys())
def test_the_output_depends_on_the_leaf_whatever_wraps_it(wrap, unwrap):
    network, x = Takes(wrap, unwrap).double(), torch.rand(4, 3, dtype=torch.float64)
    leaf, output = run_with_leaf(network, network.layer, x, keep_graph=False)
    torch.testing.assert_close(output, network(x))
    torch.testing.assert_close(leaf, 2 * network.before(x))
    assert leaf.grad_fn is None
    (slope,) = torch.autograd.grad(output.sum(), leaf)
    torch.testing.assert_close(slope, 3 * network.last.weight.sum(0).expand(4, 3))


def test_with_its_graph_the_leaf_depends_on_the_image():
    network, x = Takes(*WRAPS["tensor"]).double(), torch.rand(4, 3, dtype=torch.float64).requires_grad_(True)
    leaf, output = run_with_leaf(network, network.layer, x, keep_graph=True)
    assert leaf.grad_fn is not None
    torch.testing.assert_close(torch.autograd.grad(output.sum(), x)[0], torch.autograd.grad(network(x).sum(), x)[0])


def test_hooks_are_gone_also_after_an_exception():
    network = Takes(*WRAPS["tensor"])
    for wrong in (torch.rand(4, 5), torch.rand(4, 3)):
        try:
            run_with_leaf(network, network.layer, wrong, keep_graph=False)
            outputs_of(network, network, wrong)
        except RuntimeError:
            pass
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_layers_are_listed_in_the_order_in_which_they_end():
    network = nn.Sequential(OrderedDict(a=nn.Linear(3, 4), b=nn.Sequential(nn.ReLU(), nn.Linear(4, 2))))
    found = outputs_of(network, network, torch.rand(5, 3))
    assert found == [("a", (5, 4)), ("b.0", (5, 4)), ("b.1", (5, 2)), ("b", (5, 2))]


def test_what_is_not_there_is_refused():
    network = Takes(*WRAPS["tensor"])
    with pytest.raises(InputError, match="it has before, layer, last"):
        layer_of(network, "middle")
    unused = nn.Linear(1, 1)
    with pytest.raises(InputError, match="gave no tensor"):
        run_with_leaf(network, unused, torch.rand(2, 3), keep_graph=False)
    assert first_tensor(("words", 3)) is None


def test_the_penultimate_representation_is_what_the_last_linear_layer_takes():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.rand(5, 3)
    torch.testing.assert_close(input_of_last_linear(network, x), torch.tanh(network[0](x)))
    with pytest.raises(InputError, match="no linear layer"):
        input_of_last_linear(nn.Flatten(), x)


def test_many_layers_are_seen_in_one_graph():
    network, x = Takes(*WRAPS["tuple"]).double(), torch.rand(4, 3, dtype=torch.float64).requires_grad_(True)
    layers = {"before": network.before, "layer": network.layer, "last": network.last, "none": nn.Identity()}
    given, output = run_with_graph(network, layers, x)
    assert list(given) == ["before", "layer", "last"]
    torch.testing.assert_close(output, network(x))
    torch.testing.assert_close(given["layer"], 2 * network.before(x), msg="before what follows works in place")
    slopes = torch.autograd.grad(output.sum(), list(given.values()))
    torch.testing.assert_close(slopes[0], 6 * network.last.weight.sum(0).expand(4, 3))
    torch.testing.assert_close(slopes[1], 3 * network.last.weight.sum(0).expand(4, 3))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(not reaches(output, [x], values) for values in given.values())


def test_ways_beside_a_value_are_found_also_through_work_in_place():
    x = torch.ones(3, requires_grad=True)
    first = 2 * x
    second = first.exp()
    written = torch.zeros(3)
    written[:2] = second[:2]
    written.relu_()
    assert not reaches(written, [x], first)
    assert not reaches(written, [x], second)
    written[2] = x[0]
    assert reaches(written, [x], second)
    assert reaches(second * first, [x], second)
    assert not reaches(second * first.detach(), [x], second)
    assert not reaches(x.sum(), [x], x)
