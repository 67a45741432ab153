import pytest
import torch

from pellucid.errors import GradientError
from pellucid.maths.ascent import Step
from pellucid.maths.lbfgs import minimise

N, D = 5, 12


@pytest.fixture
def bowls(generator):
    """Quadratics with curvatures from 1 to 30, one per row."""
    turned = torch.linalg.qr(torch.randn(N, D, D, generator=generator, dtype=torch.float64)).Q
    hessian = turned @ torch.diag(torch.linspace(1, 30, D, dtype=torch.float64)) @ turned.mT
    slope = torch.randn(N, D, generator=generator, dtype=torch.float64)

    def value(p, rows):
        return 0.5 * torch.einsum("ni,nij,nj->n", p, hessian[rows], p) - (slope[rows] * p).sum(1)

    return value, torch.linalg.solve(hessian, slope)


@pytest.fixture
def network(generator):
    """The loss of a small network, each row with a target of its own."""
    weight = torch.randn(20, D, generator=generator, dtype=torch.float64)
    aims = torch.randn(N, 1, generator=generator, dtype=torch.float64) / 3
    return lambda p, rows: (torch.tanh(p @ weight.T / 4) - aims[rows]).square().mean(1) + 0.05 * p.square().sum(1)


def by_torch(value, start, row, **settings):
    """Return the iterate of torch's L-BFGS on one row alone."""
    point = start[row : row + 1].clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([point], max_eval=10**9, **settings)

    def closure():
        optimiser.zero_grad()
        loss = value(point, torch.tensor([row])).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return point.detach()[0]


@pytest.mark.parametrize("history", [2, 100])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_every_row_goes_where_torch_goes_with_it_alone(bowls, network, generator, history, steps):
    start = torch.randn(N, D, generator=generator, dtype=torch.float64)
    for value in (bowls[0], network):
        ours = minimise(
            lambda p, rows, value=value: Step(value(p, rows)),
            start,
            steps,
            step_size=0.5,
            history=history,
            line_search=False,
        )
        for row in range(N):
            theirs = by_torch(value, start, row, lr=0.5, max_iter=steps, history_size=history)
            torch.testing.assert_close(ours.x[row], theirs, rtol=0, atol=1e-8)


def test_backtracking_finds_the_minimum_and_never_climbs(bowls, generator):
    value, minimum = bowls
    start = torch.randn(N, D, generator=generator, dtype=torch.float64)
    before = value(start, torch.arange(N))
    for steps in range(1, 12):
        now = value(minimise(lambda p, rows: Step(value(p, rows)), start, steps).x, torch.arange(N))
        assert bool((now < before).all())
        before = now
    found = minimise(lambda p, rows: Step(value(p, rows)), start, 60)
    torch.testing.assert_close(found.x, minimum, rtol=0, atol=1e-4)


def test_a_step_that_is_far_too_long_is_shortened():
    start = torch.tensor([[2.0, 2.0], [0.1, -3.0]], dtype=torch.float64)
    out = minimise(lambda p, rows: Step((p**4).sum(1)), start, 40, step_size=100.0).x
    assert bool(((out**4).sum(1) < 1e-3 * (start**4).sum(1)).all())


def test_a_value_that_is_infinite_further_on_is_backed_away_from():
    start = torch.full((1, 1), 0.5, dtype=torch.float64)
    out = minimise(lambda p, rows: Step(-p[:, 0] - (1 - p[:, 0]).log()), start, 30, step_size=50.0).x  # least at 0
    assert float(out) == pytest.approx(0, abs=1e-4)


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(GradientError, match="not finite"):
        minimise(lambda p, rows: Step((1e300 * p).square().sum(1)), torch.ones(1, 2, dtype=torch.float64), 5)


def test_rows_end_on_their_own(bowls, generator):
    value, minimum = bowls
    start = torch.randn(N, D, generator=generator, dtype=torch.float64)
    start[2] = minimum[2]  # nothing to do
    counts = torch.zeros(N, dtype=torch.int64)

    def counting(p, rows):
        counts[rows] += 1
        return Step(value(p, rows))

    minimise(counting, start, 50)
    assert int(counts[2]) == 1
    assert int(counts.max()) > 10


def test_the_best_point_that_finished_is_kept_and_with_leave_the_first(generator):
    start = torch.tensor([[3.0], [2.0], [9.0]], dtype=torch.float64)

    def value(p, rows):  # finished between 0.5 and 1.5, the minimum lies beyond at 0
        return Step(0.5 * p[:, 0] ** 2, (p[:, 0].abs() < 1.5) & (p[:, 0] > 0.5))

    found = minimise(value, start, 12, step_size=0.3, line_search=False)
    assert found.finished.all()
    assert bool((found.best > 0.5).all())
    assert bool((found.x < 0.5).all())
    first = minimise(value, start, 8, step_size=0.3, line_search=False, leave=True)
    assert bool(((first.x > 0.5) & (first.x < 1.5)).all())
    nobody = minimise(lambda p, rows: Step(0.5 * p[:, 0] ** 2, p[:, 0] > 99), start, 8)
    assert torch.equal(nobody.best, nobody.x)


def test_rows_do_not_depend_on_each_other(network, generator):
    start = torch.randn(N, D, generator=generator, dtype=torch.float64)
    for line_search in (False, True):
        together = minimise(lambda p, rows: Step(network(p, rows)), start, 15, step_size=0.5, line_search=line_search)
        for i in range(N):
            alone = minimise(
                lambda p, rows, i=i: Step(network(p, rows + i)),
                start[i : i + 1],
                15,
                step_size=0.5,
                line_search=line_search,
            )
            torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-9)
    assert minimise(lambda p, rows: Step(network(p, rows)), start[:0], 5).x.shape == (0, D)
