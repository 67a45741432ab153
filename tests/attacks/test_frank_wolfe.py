import pytest
import torch
from torch import nn

from pellucid.attacks import FrankWolfeL1
from pellucid.maths import counted, cross_entropy
from pellucid.maths.balls import fill_l1
from pellucid.metrics import predict
from pellucid.rng import Stream


@pytest.fixture
def images(generator):
    return torch.rand(10, 1, 3, 4, generator=generator, dtype=torch.float64)


def one_pixel_after_the_other(x, slope, eps):
    """The corner of the ball and of [0, 1], for one image, by a loop."""
    x, slope, corner = x.flatten(), slope.flatten(), x.flatten().clone()
    for i in sorted(range(len(x)), key=lambda i: -abs(float(slope[i]))):
        room = float(1 - x[i]) if slope[i] > 0 else float(x[i])
        step = min(room, eps)
        corner[i] += step if slope[i] > 0 else -step
        eps -= step
    return corner


def test_on_a_linear_network_one_step_reaches_the_worst_point_and_more_stay(linear, images):
    network, y = linear(classes=2), torch.arange(10) % 2
    difference = (network.weight[1] - network.weight[0]).detach()
    for eps in (0.3, 2.0, 100.0):
        worst = torch.stack(
            [
                one_pixel_after_the_other(x, difference if label == 0 else -difference, eps)
                for x, label in zip(images, y)
            ]
        ).view_as(images)
        for steps in (1, 5):
            attack = FrankWolfeL1(eps=eps, steps=steps)
            torch.testing.assert_close(attack(network, images, y, rng=Stream(2)), worst, rtol=0, atol=1e-12)
    assert set(worst.unique().tolist()) == {0.0, 1.0}  # the largest budget pushes every pixel to an end


def test_it_is_its_definition(images, generator):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 4)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (3 / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))
    y, eps = torch.arange(10) % 4, 1.5
    for goal in (None, (y + 1) % 4):
        expected = []
        for n in range(10):
            point = images[n : n + 1].clone()
            for t in range(6):
                point = point.detach().requires_grad_(True)
                label = (y if goal is None else goal)[n : n + 1]
                (slope,) = torch.autograd.grad(cross_entropy(network(point), label).sum(), point)
                slope = slope if goal is None else -slope
                corner = one_pixel_after_the_other(images[n], slope[0], eps).view(1, 1, 3, 4)
                point = point + (corner - point) / (t + 1)
            expected.append(point.detach())
        attack = FrankWolfeL1(eps=eps, steps=6, random_start=False)
        torch.testing.assert_close(attack(network, images, y, target=goal), torch.cat(expected), rtol=0, atol=1e-12)


def test_the_maximum_of_a_concave_function_over_ball_and_box_is_approached(images):
    centre = 1 - images  # -|x - centre|^2 is highest at the projection of the centre onto ball and box

    def objective(x, rows):
        return -(x - centre[rows]).flatten(1).square().sum(1)

    found = FrankWolfeL1(eps=1.0, steps=400).maximise(objective, images)
    # by soft thresholding: the centre lies within the box, so the box plays no part
    delta = (centre - images).flatten(1)
    lows, highs = torch.zeros(10, 1, dtype=torch.float64), delta.abs().amax(1, keepdim=True)
    for _ in range(60):
        middle = (lows + highs) / 2
        outside = (delta.abs() - middle).clamp(min=0).sum(1, keepdim=True) > 1.0
        lows, highs = torch.where(outside, middle, lows), torch.where(outside, highs, middle)
    best = images + (delta.sign() * (delta.abs() - highs).clamp(min=0)).view_as(images)
    rows = torch.arange(10)
    gap = objective(best, rows) - objective(found, rows)
    assert bool((gap > -1e-9).all())
    assert float(gap.max()) < 0.02


def test_the_budget_is_used_up_and_never_more(images):
    slope = torch.randn(10, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    room = torch.where(slope > 0, 1 - images, images)
    for eps in (0.01, 1.0, 3.0):
        assert fill_l1(slope, eps, room).abs().flatten(1).sum(1).tolist() == pytest.approx([eps] * 10)
    large = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    for eps in (10.0, 2400.0):
        spent = fill_l1(large - 0.5, eps, large).double().abs().flatten(1).sum(1)
        assert spent.tolist() == pytest.approx([eps] * 2, rel=1e-4)
        assert float(spent.max()) <= eps * (1 + 1e-5)


def test_the_start_matters_only_for_the_first_gradient(images):
    seen = []

    def objective(x, rows):
        seen.append(x.detach().clone())
        return (x * x).flatten(1).sum(1)

    out = FrankWolfeL1(eps=2.0, steps=1).maximise(objective, images, rng=Stream(1))
    assert float((seen[0] - images).abs().flatten(1).sum(1).min()) > 0
    assert float((seen[0] - images).abs().flatten(1).sum(1).max()) <= 2.0
    torch.testing.assert_close(out, images + fill_l1(seen[0], 2.0, 1 - images))


def test_fooled_images_leave_and_cost_nothing_more(linear, images):
    network = linear(classes=3)
    y = predict(network, images)
    y[:3] = (y[:3] + 1) % 3
    with counted() as passes:
        out = FrankWolfeL1(eps=1e-6, steps=4, random_start=False)(network, images, y, stop_when_fooled=True)
    assert torch.equal(out[:3], images[:3])
    assert passes.forward == passes.backward == 3 + 7 * 4
