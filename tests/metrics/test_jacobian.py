"""The Frobenius norm of the Jacobian: closed forms, torch.func, and estimates from projections."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.errors import GradientError, InputError
from pellucid.maths import counted
from pellucid.maths.jacobian import orthonormal, squared_frobenius
from pellucid.metrics import jacobian_frobenius_norm
from pellucid.models import adapt
from pellucid.rng import Stream, derive


def filled(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, p in module.double().named_parameters():
            like = torch.empty(1, 0, dtype=torch.float64)
            p.copy_(Stream(derive(2, name)).normal(like, tuple(p.shape))[0])
    return module.eval()


@pytest.fixture(scope="module")
def network():
    return adapt(filled(nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5))), mean=0.3, std=0.5)


@pytest.fixture(scope="module")
def images():
    return Stream(4).uniform(torch.empty(6, 0, dtype=torch.float64), (1, 3, 4))


def test_of_a_linear_network_it_is_the_norm_of_the_weights(images):
    linear = filled(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)))
    expected = linear[1].weight.detach().norm()
    torch.testing.assert_close(jacobian_frobenius_norm(adapt(linear), images), expected.expand(6))
    torch.testing.assert_close(jacobian_frobenius_norm(adapt(linear, std=0.5), images), 2 * expected.expand(6))


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_exact_norms_are_those_of_jacrev(network, images, of):
    def outputs(x):
        logits = network(x[None])[0]
        return logits if of == "logits" else logits.softmax(0)

    expected = torch.stack([torch.func.jacrev(outputs)(x).detach().norm() for x in images])
    torch.testing.assert_close(jacobian_frobenius_norm(network, images, of=of, batch_size=4), expected)


def test_as_many_projections_as_outputs_are_exact(network, images):
    exact = jacobian_frobenius_norm(network, images)
    torch.testing.assert_close(jacobian_frobenius_norm(network, images, projections=5), exact, rtol=1e-6, atol=0)
    with counted() as passes:
        jacobian_frobenius_norm(network, images, projections=2)
    assert (passes.forward, passes.backward) == (6, 12)


@pytest.mark.parametrize("projections", [1, 3])
def test_fewer_projections_are_right_on_average(network, images, projections):
    exact = jacobian_frobenius_norm(network, images).square()
    streams = [Stream(seed) for seed in range(600)]
    found = torch.stack(
        [jacobian_frobenius_norm(network, images, projections=projections, rng=rng) for rng in streams]
    ).square()
    error = found.std(0) / len(streams) ** 0.5
    assert bool(((found.mean(0) - exact).abs() < 4 * error).all())
    assert bool((found.std(0) > 0.01 * exact).all())


def test_directions_are_orthonormal_and_belong_to_their_image():
    like = torch.zeros(4, 5, dtype=torch.float64)
    found = orthonormal(like, 3, Stream(7))
    torch.testing.assert_close(found.mT @ found, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(orthonormal(like[:2], 3, Stream(7).take(rows)), found[rows])


def test_directions_prefer_no_side():
    for count in (1, 3):
        found = orthonormal(torch.zeros(4000, 3, dtype=torch.float64), count, Stream(5))
        assert float(found.mean(0).abs().max()) < 0.05  # of mean 0 and variance 1/3: 5 standard errors
        torch.testing.assert_close(found.square().mean(0), torch.full_like(found[0], 1 / 3), rtol=0, atol=0.03)


def test_estimates_do_not_depend_on_the_batch(network, images):
    found = [
        jacobian_frobenius_norm(network, images, projections=1, rng=Stream(3), batch_size=size) for size in (1, 4, 100)
    ]
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_the_norm_can_be_trained_on(images):
    network = filled(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Softplus(), nn.Linear(6, 4)))
    weight = network[1].weight

    def penalty(w):
        x = images.clone().requires_grad_(True)
        hidden = functional.softplus(x.flatten(1) @ w.T + network[1].bias)
        return squared_frobenius(network[3](hidden), x, create_graph=True).sum()

    assert torch.autograd.gradcheck(penalty, (weight.detach().clone().requires_grad_(True),), fast_mode=True)


def constant(weight: list[float], dtype: torch.dtype) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, len(weight), bias=False)).to(dtype)
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor(weight)[:, None].expand(-1, 4))
    return module


def test_squares_neither_vanish_nor_overflow():
    x = torch.full((2, 1, 2, 2), 0.5)
    assert jacobian_frobenius_norm(constant([1e-30, 0.0], torch.float32), x).tolist() == pytest.approx([2e-30] * 2)
    half = x.to(torch.float16)  # 400^2 is more than it holds
    assert jacobian_frobenius_norm(constant([400.0, 300.0], torch.float16), half).tolist() == pytest.approx([1000] * 2)
    leaf = half.clone().requires_grad_(True)
    squared = squared_frobenius(constant([400.0, 300.0], torch.float16)(leaf), leaf)
    assert squared.dtype == torch.float32
    assert squared.tolist() == pytest.approx([1e6] * 2)


def test_probabilities_of_a_saturated_network_have_a_small_norm_not_none():
    network = constant([0.0, 30.0], torch.float32)  # logits 0 and 60: p (1 - p) = e^-60, which float32 cannot square
    found = jacobian_frobenius_norm(network, torch.full((1, 1, 2, 2), 0.5), of="probabilities")
    slope = 30 * torch.tensor(-60.0, dtype=torch.float64).exp()  # of either probability in each of 4 pixels
    assert float(found) == pytest.approx(float(slope) * 2, rel=0.1)  # of the first; the second's is rounded to 0


def test_the_network_is_left_as_it_was(network, images):
    network.train()
    try:
        jacobian_frobenius_norm(network, images, projections=1)
        assert network.training
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
    finally:
        network.eval()


def test_what_cannot_be_differentiated_is_refused(network, images):
    class Cut(nn.Sequential):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(GradientError, match="detached"):
        jacobian_frobenius_norm(Cut(network), images)
    with pytest.raises(InputError, match="logits or probabilities"):
        jacobian_frobenius_norm(network, images, of="features")
    with pytest.raises(InputError, match=r"\(N, K\)"):
        squared_frobenius(images.flatten(1)[:5], images)


def test_projections_that_are_not_there_are_refused(network, images):
    for count in (0, 6):
        with pytest.raises(InputError, match="1 to 5"):
            jacobian_frobenius_norm(network, images, projections=count)
    assert jacobian_frobenius_norm(network, images[:0]).shape == (0,)
