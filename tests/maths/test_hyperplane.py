import itertools

import pytest
import torch
from scipy.optimize import linprog, minimize

from pellucid.maths.hyperplane import onto_hyperplane, water_level

PIXELS = 7


@pytest.fixture
def problems(generator):
    """Points in the box, some pixels at its ends, slopes with zeros and ties, values of both signs."""
    x = (1.4 * torch.rand(40, PIXELS, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    slope = torch.randn(40, PIXELS, generator=generator, dtype=torch.float64)
    slope[::3, :2] = 0
    slope[1::3, 3] = -slope[1::3, 4]
    value = 2 * torch.randn(40, generator=generator, dtype=torch.float64)
    reach = torch.where(value > 0, -1.0, 1.0)[:, None] * slope
    most = (reach.clamp(min=0) * (1 - x) - reach.clamp(max=0) * x).sum(1)
    return x, slope, value, value.abs() <= most


def test_linf_is_as_short_as_a_linear_programme_finds(problems):
    x, slope, value, crossed = problems
    delta = onto_hyperplane("linf", x, slope, value)
    assert crossed.any()
    for i in torch.nonzero(crossed)[:, 0].tolist():
        # variables: delta, t; minimise t subject to -t <= delta <= t, <slope, delta> = -value, the box
        eye, ones = torch.eye(PIXELS), torch.ones(PIXELS, 1)
        found = linprog(
            [0.0] * PIXELS + [1.0],
            A_ub=torch.cat([torch.cat([eye, -ones], 1), torch.cat([-eye, -ones], 1)]).numpy(),
            b_ub=[0.0] * 2 * PIXELS,
            A_eq=[[*slope[i].tolist(), 0.0]],
            b_eq=[-value[i].item()],
            bounds=[(-p, 1 - p) for p in x[i].tolist()] + [(0, None)],
        )
        assert delta[i].abs().max().item() == pytest.approx(found.fun, abs=1e-9)


def test_l2_is_the_solution_of_the_quadratic_programme(problems):
    x, slope, value, crossed = problems
    delta = onto_hyperplane("l2", x, slope, value)
    for i in torch.nonzero(crossed)[:12, 0].tolist():
        w, room = slope[i].numpy(), [(-p, 1 - p) for p in x[i].tolist()]
        found = minimize(
            lambda d: d @ d / 2,
            delta[i].numpy() * 0,
            jac=lambda d: d,
            bounds=room,
            constraints={"type": "eq", "fun": lambda d, w=w, i=i: w @ d + value[i].item(), "jac": lambda d, w=w: w},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert found.success
        torch.testing.assert_close(delta[i], torch.as_tensor(found.x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_plane_is_reached_within_the_box_or_the_nearest_corner_is(problems, norm):
    x, slope, value, crossed = problems
    delta = onto_hyperplane(norm, x, slope, value)
    assert ((x + delta >= 0) & (x + delta <= 1)).all()
    left = value + (slope * delta).sum(1)
    torch.testing.assert_close(left[crossed], torch.zeros_like(left[crossed]), rtol=0, atol=1e-12)
    assert (~crossed).any()
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=PIXELS)), dtype=torch.float64)
    for i in torch.nonzero(~crossed)[:, 0].tolist():
        best = (value[i] + (corners - x[i]) @ slope[i]).abs().min()
        torch.testing.assert_close(left[i].abs(), best)
    assert (delta[slope == 0] == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_far_from_the_ends_of_the_range_it_is_the_textbook_projection(norm, generator):
    x, slope = torch.full((5, 1, 3, 4), 0.5).double(), torch.randn(5, 1, 3, 4, generator=generator).double()
    value = 0.1 * torch.randn(5, generator=generator).double()
    column = value.view(-1, 1, 1, 1)
    flat = slope.flatten(1)
    expected = {
        "linf": -column / flat.abs().sum(1).view(-1, 1, 1, 1) * slope.sign(),
        "l2": -column / flat.square().sum(1).view(-1, 1, 1, 1) * slope,
    }[norm]
    torch.testing.assert_close(onto_hyperplane(norm, x, slope, value), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_units_of_the_slope_do_not_matter(problems, norm, scale):
    x, slope, value, _ = (part.float() if part.is_floating_point() else part for part in problems)
    torch.testing.assert_close(
        onto_hyperplane(norm, x, slope * scale, value * scale),
        onto_hyperplane(norm, x, slope, value),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_moves_without_need_or_without_slope(norm):
    x, slope = torch.full((2, 1, 2, 2), 0.5), torch.ones(2, 1, 2, 2)
    assert torch.equal(onto_hyperplane(norm, x, slope, torch.zeros(2)), torch.zeros_like(x))
    assert torch.equal(onto_hyperplane(norm, x, 0 * slope, torch.ones(2)), torch.zeros_like(x))
    assert onto_hyperplane(norm, x[:0], slope[:0], torch.zeros(0)).shape == (0, 1, 2, 2)


def test_the_water_level_fills_the_vessels(generator):
    weights, caps = torch.rand(2, 30, 6, generator=generator, dtype=torch.float64)
    caps[:, 0] = caps[:, 1]
    amount = 2 * torch.rand(30, generator=generator, dtype=torch.float64)
    level = water_level(weights, caps, amount)
    held = (weights * torch.minimum(level[:, None], caps)).sum(1)
    torch.testing.assert_close(held, torch.minimum(amount, (weights * caps).sum(1)))
