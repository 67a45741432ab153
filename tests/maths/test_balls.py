import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from pellucid.maths import fill_l1, project, random_start, steepest
from pellucid.rng import Stream

NORMS = ("linf", "l2")
ORDER = {"linf": math.inf, "l2": 2}

deltas = st.integers(0, 2**31).flatmap(
    lambda seed: st.tuples(
        st.just(seed),
        st.sampled_from(NORMS),
        st.floats(1e-3, 10),
        st.floats(-30, 3),
        st.sampled_from([torch.float32, torch.float64]),
    )
)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def length(norm: str, delta: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(delta.double().flatten(1), ORDER[norm], dim=1)


def perturbations(seed: int, power: float, dtype: torch.dtype) -> torch.Tensor:
    """Four perturbations (2, 3, 2) of random direction, about 10^power long."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(4, 2, 3, 2, generator=generator, dtype=torch.float64) * 10**power).to(dtype)


@quick
@given(deltas)
def test_what_lies_inside_is_returned_unchanged(case):
    seed, norm, eps, power, dtype = case
    delta = perturbations(seed, power, dtype)
    inside = length(norm, delta) <= eps * (1 - 1e-6)
    assert torch.equal(project(norm, delta, eps)[inside], delta[inside])


@quick
@given(deltas)
def test_what_lies_outside_lands_on_the_sphere_and_nowhere_else(case):
    seed, norm, eps, power, dtype = case
    delta = perturbations(seed, power, dtype)
    outside = length(norm, delta) > eps
    projected = project(norm, delta, eps)
    assert projected.dtype == dtype
    torch.testing.assert_close(
        length(norm, projected)[outside],
        torch.full_like(length(norm, delta)[outside], eps),
        rtol=1e-6,
        atol=0,
    )
    assert (length(norm, projected) <= eps * (1 + 1e-6)).all()


@quick
@given(deltas)
def test_projecting_twice_is_projecting_once(case):
    seed, norm, eps, power, dtype = case
    once = project(norm, perturbations(seed, power, dtype), eps)
    torch.testing.assert_close(project(norm, once, eps), once, rtol=3e-7, atol=0)


@quick
@given(deltas, st.integers(0, 2**31))
def test_the_projection_is_the_nearest_point_of_the_ball(case, other):
    seed, norm, eps, power, _ = case
    delta = perturbations(seed, min(power, 1.5), torch.float64)
    projected = project(norm, delta, eps)
    elsewhere = project(norm, projected + 0.1 * eps * perturbations(other, 0, torch.float64), eps)
    assert (length("l2", delta - projected) <= length("l2", delta - elsewhere) + 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_each_example_has_its_own_radius(norm, generator):
    delta = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    radii = torch.tensor([0.0, 0.1, 1.0, 100.0], dtype=torch.float64)
    together = project(norm, delta, radii)
    for row, radius in enumerate(radii.tolist()):
        torch.testing.assert_close(together[row : row + 1], project(norm, delta[row : row + 1], radius))
    assert (together[0] == 0).all()
    assert torch.equal(together[3], delta[3])


@pytest.mark.parametrize("norm", NORMS)
def test_radius_zero_and_nothing_to_project(norm):
    assert (project(norm, torch.ones(2, 3), 0.0) == 0).all()
    assert torch.equal(project(norm, torch.zeros(2, 3), 0.0), torch.zeros(2, 3))
    assert project(norm, torch.zeros(0, 1, 2, 2), 0.5).shape == (0, 1, 2, 2)


# --------------------------------------------------------------------------------------------------- steepest


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20])
def test_tiny_and_huge_gradients_keep_their_direction(size):
    g = torch.tensor([[3.0, -4.0, 0.0]]) * size
    torch.testing.assert_close(steepest("l2", g), torch.tensor([[0.6, -0.8, 0.0]]))
    assert steepest("linf", g).tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_no_step(norm):
    g = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert steepest(norm, g).tolist() == [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("norm", NORMS)
def test_no_other_unit_step_climbs_more(norm, generator):
    g = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    step = steepest(norm, g)
    torch.testing.assert_close(length(norm, step), torch.ones(1, dtype=torch.float64))
    others = project(norm, torch.randn(2000, 12, generator=generator, dtype=torch.float64), 1.0)
    assert float((others * g).sum(1).max()) <= float((step * g).sum())


# ----------------------------------------------------------------------------------------------- random start


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_starts_lie_inside_and_are_uniform(norm, dtype):
    like, eps, dimension = torch.zeros(5000, 1, 2, 3, dtype=dtype), 0.3, 6
    start = random_start(norm, like, eps, Stream(1))
    assert start.dtype == dtype
    radius = length(norm, start) / eps
    assert float(radius.max()) <= 1 + 1e-6
    assert stats.kstest((radius**dimension).numpy(), "uniform").pvalue > 1e-3  # volume grows as radius^D
    assert float(start.flatten(1).mean(0).abs().max()) < 4.5 * eps / math.sqrt(5000 * 3)


def test_random_l2_directions_are_uniform_in_the_plane():
    start = random_start("l2", torch.zeros(5000, 2, dtype=torch.float64), 1.0, Stream(2))
    angle = torch.atan2(start[:, 1], start[:, 0]) / (2 * math.pi) + 0.5
    assert stats.kstest(angle.numpy(), "uniform").pvalue > 1e-3
    assert abs(float((angle * length("l2", start)).mean() - angle.mean() * length("l2", start).mean())) < 0.01


def test_random_linf_coordinates_are_uniform_and_independent():
    start = random_start("linf", torch.zeros(5000, 2, dtype=torch.float64), 0.5, Stream(3))
    assert stats.kstest((start.flatten() + 0.5).numpy(), "uniform").pvalue > 1e-3
    assert abs(float((start[:, 0] * start[:, 1]).mean()) * 12) < 4.5 / math.sqrt(5000)


@pytest.mark.parametrize("norm", NORMS)
def test_each_example_starts_within_its_own_radius(norm):
    radii = torch.tensor([0.0, 1e-3, 2.0])
    start = random_start(norm, torch.zeros(3, 1, 2, 2), radii, Stream(4))
    assert (start[0] == 0).all()
    same = random_start(norm, torch.zeros(3, 1, 2, 2), 1.0, Stream(4))
    torch.testing.assert_close(start, same * radii.view(3, 1, 1, 1))


@pytest.mark.parametrize("norm", NORMS)
def test_no_example_to_start_from(norm):
    assert random_start(norm, torch.zeros(0, 1, 2, 2), 0.5, Stream(0)).shape == (0, 1, 2, 2)


@pytest.mark.parametrize("huge", [1e38, float("inf")])
def test_perturbations_of_infinite_length_are_projected_onto_the_sphere(huge):
    delta = torch.tensor([[huge, -huge, 0.0, *[huge] * 14]])
    expected = torch.tensor([[0.5, -0.5, 0.0, *[0.5] * 14]])
    torch.testing.assert_close(project("l2", delta, 2.0), expected)
    torch.testing.assert_close(steepest("l2", delta), expected / 2)


@pytest.mark.parametrize("seed", range(20))
def test_filling_the_l1_ball_solves_its_linear_programme(seed):
    """max g d over sum |d| <= eps and |d_i| <= room_i, as a linear programme in d+ and d-."""
    stream = Stream(seed)
    like = torch.empty(3, 2, 2, 2, dtype=torch.float64)
    g, room = stream.child("g").normal(like), stream.child("room").uniform(like)
    g[1, 0] = 0  # no direction to push these
    room[2, 1] = 0  # no room to push these
    eps = torch.tensor([0.3, 2.0, 50.0], dtype=torch.float64)
    found = fill_l1(g, eps, room)
    assert bool((found.abs() <= room + 1e-12).all())
    assert bool((found[g == 0] == 0).all())
    assert bool((found.abs().flatten(1).sum(1) <= eps + 1e-12).all())
    for n in range(3):
        slope, most = g[n].flatten().numpy(), room[n].flatten().numpy()
        best = optimize.linprog(
            [*-slope, *slope], A_ub=[[1.0] * 16], b_ub=[float(eps[n])], bounds=[(0, m) for m in (*most, *most)]
        )
        assert float((g[n] * found[n]).sum()) == pytest.approx(-best.fun, abs=1e-9)


def test_filling_the_l1_ball_beats_every_corner_of_a_small_box():
    g, room = torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([[0.5, 0.2, 1.0]])
    for eps in (0.0, 0.4, 0.5, 0.6, 1.0, 9.0):
        grid = torch.cartesian_prod(*(torch.linspace(-1, 1, 41) * m for m in room[0]))
        best = float((grid[grid.abs().sum(1) <= eps + 1e-6] @ g[0]).max())
        assert float((g * fill_l1(g, eps, room)).sum()) >= best - 1e-5
    assert fill_l1(g, 0.6, room)[0].tolist() == pytest.approx([0.5, -0.1, 0.0])
    assert fill_l1(g[:0], 0.6, room[:0]).shape == (0, 3)


def test_draws_from_the_l1_ball_are_uniform():
    """|d| grows with the power of the dimension, every sign is as likely, and the shares of |d| are Dirichlet."""
    draws = random_start("l1", torch.empty(4000, 1, 1, 3, dtype=torch.float64), 2.0, Stream(3)).flatten(1)
    size = draws.abs().sum(1)
    assert float(size.max()) <= 2
    assert stats.kstest((size / 2).numpy() ** 3, "uniform").pvalue > 1e-3
    orthants = torch.bincount(((draws > 0) * torch.tensor([1, 2, 4])).sum(1), minlength=8)
    assert stats.chisquare(orthants.numpy()).pvalue > 1e-3
    assert stats.kstest((draws[:, 0].abs() / size).numpy(), stats.beta(1, 2).cdf).pvalue > 1e-3
    assert abs(float(stats.pearsonr(size.numpy(), (draws[:, 0].abs() / size).numpy()).statistic)) < 0.06
