"""Integrated gradients: closed forms on linear and quadratic scores, completeness on a trained network."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.data import Digits
from pellucid.errors import InputError
from pellucid.interpreters import Gradient, IntegratedGradients
from pellucid.maths import counted
from pellucid.maths.blur import gaussian_blur
from pellucid.models import SmallCNN, adapt
from pellucid.rng import Stream, global_seed

Y = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def images() -> Tensor:
    return Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 4, 3))


class Quadratic(nn.Module):
    """Logit c is (c + 1) times the sum of squares: the gradient along a path is linear."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1, keepdim=True) * torch.arange(1, 4, dtype=x.dtype)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A Small network that knows most digits, and forty of them."""
    train, test = Digits().load("train"), Digits().load("test")
    with global_seed(0):
        network = SmallCNN().build(1, (28, 28), 10)
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        for step in range(60):
            rows = Stream(step).integers(torch.empty(64, 0), len(train))
            loss = functional.cross_entropy(network(train.images(rows)), train.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval(), test.images(slice(40)), test.labels[:40]


@pytest.mark.parametrize("baseline", ["black", "white", "blurred"])
@pytest.mark.parametrize("rule", ["midpoint", "right"])
def test_of_a_linear_network_every_path_gives_weight_times_difference(linear, images, baseline, rule):
    network = linear(classes=3)
    start = {
        "black": torch.zeros_like(images),
        "white": torch.ones_like(images),
        "blurred": gaussian_blur(images, 0.3),
    }[baseline]
    found = IntegratedGradients(baseline=baseline, rule=rule, steps=3)(network, images, Y)
    expected = network.weight.detach()[Y].view_as(images) * (images - start)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_midpoints_are_exact_where_the_gradient_is_linear_and_the_right_sum_is_off_by_its_half_step(images):
    network, m = adapt(Quadratic()), 4
    exact = (Y + 1).view(-1, 1, 1, 1) * images.square()
    torch.testing.assert_close(IntegratedGradients(steps=m)(network, images, Y), exact)
    right = IntegratedGradients(rule="right", steps=m)(network, images, Y)
    torch.testing.assert_close(right, exact * (1 + 1 / m))  # (1/m) sum i/m = (m + 1) / 2m


@pytest.mark.parametrize("score", ["logit", "log_probability", "cross_entropy", "certainty"])
def test_the_sum_of_the_printed_equation_point_by_point(images, score):
    """Boopathy et al. 2020, equation 2, in a loop, on a network that is neither linear nor quadratic."""
    network = adapt(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).double())
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.3).view_as(p))
    start, m = Stream(8).uniform(images), 5
    for rule, shift in (("midpoint", 0.5), ("right", 0.0)):
        total = torch.zeros_like(images)
        for i in range(1, m + 1):
            total += Gradient(score=score)(network, start + (i - shift) / m * (images - start), Y)
        method = IntegratedGradients(rule=rule, steps=m, score=score)
        found = method.from_baseline(network, images, Y, start)
        torch.testing.assert_close(found, (images - start) * total / m, rtol=0, atol=1e-12)
        both = method.from_baseline(network, images, torch.stack([(Y + 1) % 3, Y], 1), start)
        assert both.shape == (4, 2, 1, 4, 3)
        torch.testing.assert_close(both[:, 1], found)


def test_given_baselines_one_for_all_or_one_each(images):
    network = adapt(Quadratic())
    start = Stream(5).uniform(images)
    method = IntegratedGradients(steps=2)
    exact = (Y + 1).view(-1, 1, 1, 1) * (images.square() - start.square())
    torch.testing.assert_close(method.from_baseline(network, images, Y, start), exact)
    one = (Y + 1).view(-1, 1, 1, 1) * (images.square() - start[0].square())
    torch.testing.assert_close(method.from_baseline(network, images, Y, start[0]), one)
    torch.testing.assert_close(method.from_baseline(network, images, Y, start[:1]), one)
    for wrong in (start[:2], start[:, :, :2], start[0, 0]):
        with pytest.raises(InputError):
            method.from_baseline(network, images, Y, wrong)
    with pytest.raises(InputError, match="divide by 255"):
        method.from_baseline(network, images, Y, 255 * start)


def test_expected_baselines_are_drawn_from_those_given(linear, images):
    network, drawn_from = linear(classes=3), Stream(6).uniform(images[:2])
    method = IntegratedGradients(baseline="expected", steps=400)
    found = method.from_baseline(network, images, Y, drawn_from, rng=Stream(1))
    weight = network.weight.detach()[Y].view_as(images)
    spread = (weight * (drawn_from[0] - drawn_from[1])).abs() / 2 / 400**0.5
    assert bool(((found - weight * (images - drawn_from.mean(0))).abs() < 5 * spread + 1e-12).all())
    uniform = method(network, images, Y, rng=Stream(1))
    assert bool(((uniform - weight * (images - 0.5)).abs() < 5 * weight.abs() * 12**-0.5 / 400**0.5).all())


def test_the_error_is_what_the_maps_lack(images):
    method, network = IntegratedGradients(baseline="expected", rule="right", steps=7), adapt(Quadratic())
    for target in (Y, torch.stack([Y, (Y + 1) % 3], 1)):
        found = method.attribution(network, images, target, rng=Stream(1))
        assert torch.equal(found.maps, method(network, images, target, rng=Stream(1)))
        assert found.gap.shape == target.shape
        direct = (found.maps.flatten(target.ndim).sum(target.ndim) - found.gap).abs()
        torch.testing.assert_close(found.completeness_error, direct)
        assert float(direct.min()) > 1e-3


@pytest.mark.parametrize("given", [True, False])
def test_of_a_linear_score_expected_baselines_are_complete_too(linear, images, given):
    """Only if the baselines whose scores are subtracted are the very ones that the paths began at."""
    method = IntegratedGradients(baseline="expected", steps=7)
    pool = Stream(6).uniform(images[:3]) if given else None
    found = method.attribution(linear(classes=3), images, Y, baseline=pool, rng=Stream(1))
    assert float(found.gap.abs().min()) > 1e-3
    assert float(found.completeness_error.max()) < 1e-12


def test_no_image_more_at_a_time_than_the_chunk_says(images):
    asked = []

    class Watched(Quadratic):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return super().forward(x)

    for baseline in ("black", "blurred", "expected"):
        IntegratedGradients(baseline=baseline, steps=3, chunk=2).attribution(Watched(), images, Y)
    assert max(asked) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(linear, images, dtype):
    """Two hundred gradients of 700 add up to more than float16 holds."""
    network = linear(classes=3).to(dtype)
    with torch.no_grad():
        network.weight.fill_(700.0)
    found = IntegratedGradients(steps=200).attribution(network, images.to(dtype), Y)
    assert found.maps.dtype == dtype
    torch.testing.assert_close(found.maps.double(), 700 * images, rtol=0.02, atol=1)
    assert bool((found.completeness_error < 0.02 * found.gap.abs()).all())


def test_what_does_not_fit_is_refused(images):
    network, expected = adapt(Quadratic()), IntegratedGradients(baseline="expected")
    with pytest.raises(InputError, match="none was given"):
        expected.from_baseline(network, images, Y, images[:0])
    with pytest.raises(InputError, match=r"one image \(1, 4, 3\), or one for each of the 4; got \(3, 1, 4, 3\)"):
        IntegratedGradients().attribution(network, images, Y, baseline=images[:3])
    for call in (IntegratedGradients(), IntegratedGradients().attribution):
        with pytest.raises(InputError, match=r"targets must be 0\.\.2; found 3"):
            call(network, images, torch.full((4,), 3))
        with pytest.raises(InputError, match="images must lie"):
            call(network, images + 1, Y)
    empty = IntegratedGradients().attribution(network, images[:0], Y[:0], baseline=images[0])
    assert [len(part) for part in empty] == [0, 0, 0]


def test_maps_add_up_within_a_hundredth_on_a_trained_network(trained):
    network, x, y = trained
    with torch.no_grad():
        score = network(x).gather(1, y[:, None])[:, 0] - network(torch.zeros_like(x)).gather(1, y[:, None])[:, 0]
    found = IntegratedGradients().attribution(network, x, y)
    torch.testing.assert_close(found.gap, score, rtol=1e-4, atol=1e-4)
    direct = (found.maps.sum((1, 2, 3)) - score).abs()
    torch.testing.assert_close(found.completeness_error, direct, rtol=1e-3, atol=1e-4)
    share = found.completeness_error / score.abs()
    assert float(found.completeness_error.mean() / score.abs().mean()) < 0.005
    assert float((share < 0.01).double().mean()) >= 0.9  # where the scores hardly differ, a share says little
    right = IntegratedGradients(rule="right").attribution(network, x, y)
    assert float(right.completeness_error.mean()) > 2 * float(found.completeness_error.mean())


def test_the_error_comes_for_every_class_and_costs_two_forwards(trained):
    network, x, y = trained
    pair = torch.stack([y[:6], (y[:6] + 1) % 10], 1)
    with counted() as passes:
        found = IntegratedGradients(steps=5).attribution(network, x[:6], pair)
    assert found.completeness_error.shape == found.gap.shape == (6, 2)
    assert (passes.forward, passes.backward) == (5 * 6 + 2 * 6, 2 * 5 * 6)


@pytest.mark.parametrize("chunk", [1, 3, 17, 64, 5000])
def test_the_map_does_not_depend_on_the_chunk(trained, chunk):
    network, x, y = trained
    whole, parts = (IntegratedGradients(steps=10, chunk=size)(network, x[:7], y[:7]) for size in (70, chunk))
    assert float((whole - parts).abs().max() / whole.abs().max()) < 1e-5


def test_softplus_has_the_second_derivatives_that_relu_lacks(trained):
    network, x, y = trained
    slopes = {}
    for beta in (None, 1.0):
        leaf = x[:3].clone().requires_grad_(True)
        maps = IntegratedGradients(steps=2, softplus_beta=beta)(network, leaf, y[:3], create_graph=True)
        mean_slope = (
            maps[leaf > 0.5] / leaf[leaf > 0.5]
        )  # from a black image: the map is the mean gradient times the image
        slopes[beta] = float(torch.autograd.grad(mean_slope.sum(), leaf)[0].abs().max())
    assert slopes[1.0] > 1e-2
    assert slopes[None] < 1e-4, "of a piecewise linear score it is constant almost everywhere"
    plain = Gradient()(network, x[:3], y[:3])
    again = Gradient()(network, x[:3], y[:3])
    assert torch.equal(plain, again), "the network's own ReLU is back"


def test_softplus_scores_are_those_of_the_other_network(trained):
    network, x, y = trained
    found = IntegratedGradients(softplus_beta=1.0, steps=100).attribution(network, x[:4], y[:4])
    assert float((found.completeness_error / found.gap.abs().clamp(min=1)).max()) < 0.01
    with torch.no_grad():
        plain = network(x[:4]).gather(1, y[:4, None])[:, 0]
    assert float((found.gap - plain).abs().max()) > 0.05
