import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.interpreters import GuidedBackprop
from pellucid.maths.relu import relu_replaced
from pellucid.models import BoopathyWResNet, JakubovitzCNN, PerImage, PoolCNN, RossCNN, SmallCNN
from pellucid.models.activation import activation_layer
from pellucid.rng import global_seed
from pellucid.spec import entries

FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "softplus": lambda x: math.log1p(math.exp(10 * x)) / 10,
}
SMALL = {"width": 4, "blocks": 1, "depth": 10, "widen": 1}


def narrow(cls, **more):
    """Return a description with little to compute."""
    fields = cls.__dataclass_fields__
    sizes = {k: v for k, v in SMALL.items() if k in fields and isinstance(fields[k].default, int)}
    return cls(**sizes, **more)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_printed_formulas(name):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[name](float(value)) for value in x], dtype=torch.float64)
    torch.testing.assert_close(activation_layer(name)(x), expected)
    assert float((activation_layer(name)(x) - functional.relu(x)).abs().max()) < 0.3


NETWORKS = [pytest.param(cls, id=name) for name, cls in entries("model") if cls is not PerImage]  # which holds another


@pytest.mark.parametrize("cls", NETWORKS)
def test_every_network_offers_them_and_none_of_its_relus_stays(cls):
    found = {}
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in FORMULAS:
        with global_seed(0):
            network = narrow(cls, activation=name).build(1, (16, 16), 3).eval()
        with relu_replaced(lambda _, values: functional.relu(values)) as met:
            found[name] = network(x)
        assert (met.count > 0) == (name == "relu")
    values = list(found.values())
    assert all(not torch.allclose(values[i], values[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("cls", [SmallCNN, PoolCNN, RossCNN, BoopathyWResNet, JakubovitzCNN])
def test_guided_backpropagation_sees_the_relus(cls):
    with global_seed(0):
        network = narrow(cls).build(1, (16, 16), 3).double().eval()
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaf = x.clone().requires_grad_(True)
    (plain,) = torch.autograd.grad(network(leaf)[0, 1], leaf)
    assert not torch.allclose(GuidedBackprop()(network, x, torch.tensor([1])).view_as(plain), plain)


@pytest.mark.parametrize("name", ["silu", "gelu", "softplus"])
@pytest.mark.parametrize(
    "spec", [SmallCNN(filters=(2, 3, 2)), BoopathyWResNet(filters=(2, 2, 4), blocks=1)], ids=["small", "wresnet"]
)
def test_a_smooth_network_has_the_second_derivatives_of_finite_differences(spec, name):
    with global_seed(1):
        network = type(spec)(**{**vars(spec), "activation": name}).build(1, (6, 4), 3).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 6, 4, generator=generator, dtype=torch.float64).requires_grad_(True)
    upstream = torch.rand(1, 3, generator=generator, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradgradcheck(network, (x,), (upstream,))


def test_under_relu_curvature_vanishes_inside_the_layers_and_under_softplus_it_does_not():
    def bend(name):
        with global_seed(1):
            network = SmallCNN(filters=(2, 3, 2), activation=name).build(1, (8, 8), 3).double()
        x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return float(torch.func.hessian(lambda image: network(image)[0, 0])(x).detach().abs().max())

    assert bend("relu") == 0
    assert bend("softplus") > 1e-4


def test_relu_is_torchs_own_layer():
    assert type(activation_layer("relu")) is nn.ReLU
