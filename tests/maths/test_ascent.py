import pytest
import torch

from pellucid.maths import Step, ascend, gradient
from pellucid.maths.passes import counted, note_forward

TARGETS = torch.tensor([[1.0], [2.0], [5.0], [0.25]], dtype=torch.float64)


def hill(finished_from: float | None = None):
    """-|x - target| per row; finished, where asked for, from a height on. Counts its forward passes."""

    def evaluate(x: torch.Tensor, rows: torch.Tensor) -> Step:
        note_forward(len(x))
        values = -(x - TARGETS[rows]).abs().sum(1)
        return Step(values, None if finished_from is None else values >= finished_from)

    return evaluate


def up(point: torch.Tensor, slope: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return point + slope.sign()


START = torch.zeros(4, 1, dtype=torch.float64)


def test_last_iterate_after_known_steps():
    with counted() as passes:
        result = ascend(hill(), START, up, 3)
    # 0 1 2 1 | 0 1 2 3: slope at the top of |x - 1| is 0, at x = 1 the first stays; 0.25 is stepped over
    assert result.x[:, 0].tolist() == [1, 2, 3, 1]
    assert (passes.forward, passes.backward) == (12, 12)


def test_best_iterate_is_kept_where_steps_lead_away():
    result = ascend(hill(), START, up, 3, keep="best")
    assert result.x[:, 0].tolist() == [1, 2, 3, 0]
    assert result.values.tolist() == [0, 0, -2, -0.25]


def test_best_costs_one_more_forward_and_no_backward():
    with counted() as passes:
        ascend(hill(), START, up, 3, keep="best")
    assert (passes.forward, passes.backward) == (16, 12)


def test_the_best_includes_the_iterate_after_the_last_step():
    assert ascend(hill(), START, up, 1, keep="best").x[:, 0].tolist() == [1, 1, 1, 0]


def test_rows_that_finished_leave_with_their_iterate_and_cost_nothing_more():
    with counted() as passes:
        result = ascend(hill(finished_from=-1.0), START, up, 4, leave=True)
    # rows 0 and 3 finish at 0 (values -1, -.25), row 1 at 1, row 2 at 4 after the last step, unseen
    assert result.x[:, 0].tolist() == [0, 1, 4, 0]
    assert (passes.forward, passes.backward) == (4 + 2 + 1 + 1, 4 + 2 + 1 + 1)
    assert result.finished.tolist() == [True, True, False, True]


def test_judging_looks_at_the_last_iterate_too():
    with counted() as passes:
        result = ascend(hill(finished_from=-1.0), START, up, 4, leave=True, judge=True)
    assert result.x[:, 0].tolist() == [0, 1, 4, 0]
    assert result.finished.tolist() == [True] * 4
    assert result.values.tolist() == [-1, -1, -1, -0.25]
    assert (passes.forward, passes.backward) == (4 + 2 + 1 + 1 + 1, 4 + 2 + 1 + 1)


def test_without_leave_finished_rows_climb_on():
    result = ascend(hill(finished_from=-1.0), START, up, 4, judge=True)
    assert result.x[:, 0].tolist() == [1, 2, 4, 0]
    assert result.finished.tolist() == [True] * 4


def test_nobody_left_ends_the_climb():
    with counted() as passes:
        result = ascend(hill(finished_from=-100.0), START, up, 50, leave=True, keep="best")
    assert torch.equal(result.x, START)
    assert (passes.forward, passes.backward) == (4, 4)


def test_leaving_and_best_together_keep_the_iterate_that_finished():
    def evaluate(x, rows):  # the height falls while the goal comes nearer
        return Step(-x[:, 0], x[:, 0] >= 2)

    result = ascend(evaluate, START, lambda p, s, v, r: p + 1, 5, keep="best", leave=True)
    assert result.x[:, 0].tolist() == [2, 2, 2, 2]
    stayed = ascend(lambda x, r: Step(-x[:, 0]), START, lambda p, s, v, r: p + 1, 5, keep="best", leave=True)
    assert stayed.x[:, 0].tolist() == [0, 0, 0, 0]


def test_rows_name_the_places_in_the_batch_that_was_given():
    seen = []

    def evaluate(x, rows):
        seen.append(rows.tolist())
        return Step(x[:, 0], x[:, 0] >= rows)

    ascend(evaluate, START, lambda p, s, v, r: p + 1, 4, leave=True)
    assert seen == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [3]]


def test_a_move_is_told_slope_values_and_rows_of_the_points_it_moves():
    told = []

    def move(point, slope, values, rows):
        told.append(rows.tolist())
        assert torch.equal(values, -(point - TARGETS[rows]).abs().sum(1))
        assert torch.equal(slope, (TARGETS[rows] - point).sign())
        assert values.dtype == torch.float64
        return point + 1

    ascend(hill(finished_from=-1.0), START, move, 4, leave=True)
    assert told == [[1, 2], [2], [2], [2]]  # whoever has finished is not moved


@pytest.mark.parametrize("keep", ["last", "best"])
def test_what_is_recorded_while_others_climb_on_is_not_touched_again(keep):
    """Values and success of a row are those of the point that is returned, whenever it left."""
    result = ascend(hill(finished_from=-1.0), START, up, 6, keep=keep, leave=True, judge=True)
    assert torch.equal(result.values, -(result.x - TARGETS).abs().sum(1))
    assert result.x[:, 0].tolist() == [0, 1, 4, 0]
    unseen = ascend(hill(finished_from=-1.0), START, up, 3, keep="last", leave=True)
    assert unseen.x[:, 0].tolist() == [0, 1, 3, 0]
    if keep == "last":  # the last iterate of row 2 was never evaluated
        assert unseen.values.tolist() == [-1, -1, -torch.inf, -0.25]
        assert unseen.finished.tolist() == [True, True, False, True]


def test_the_start_is_neither_changed_nor_shared():
    start = START.clone()
    for steps, keep in ((2, "last"), (0, "last"), (0, "best"), (2, "best")):
        result = ascend(hill(), start, up, steps, keep=keep)
        result.x.add_(7)
        assert torch.equal(start, START)


def test_no_step_and_no_row():
    with counted() as passes:
        assert torch.equal(ascend(hill(), START, up, 0).x, START)
    assert (passes.forward, passes.backward) == (0, 0)
    empty = ascend(hill(), START[:0], up, 5, keep="best", leave=True, judge=True)
    assert empty.x.shape == (0, 1)


def test_the_result_carries_no_graph_and_moves_record_none():
    def move(point, slope, values, rows):
        assert not torch.is_grad_enabled()
        assert not point.requires_grad
        return point + slope

    assert not ascend(hill(), START, move, 2).x.requires_grad


def test_an_objective_that_does_not_depend_on_the_image_leaves_it_where_it_is():
    constant = torch.zeros(4)
    assert torch.equal(ascend(lambda x, rows: Step(constant[rows]), START, up, 3).x, START)


# ----------------------------------------------------------------------------------------------------- passes


def test_blocks_that_count_may_be_nested_and_end():
    with counted() as outer:
        note_forward(3)
        with counted() as inner:
            note_forward(2)
    note_forward(5)
    assert (outer.forward, inner.forward) == (5, 2)


def test_counting_ends_also_after_an_exception():
    with pytest.raises(ZeroDivisionError), counted() as passes:
        note_forward(1 // 0)
    note_forward(1)
    assert passes.forward == 0


def test_gradient_per_example_counted_and_zero_where_there_is_none():
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    with counted() as passes:
        assert gradient((x**3).sum(1), x).tolist() == [[3.0], [12.0]]
        assert gradient(torch.zeros(2), x).tolist() == [[0.0], [0.0]]
        other = torch.ones(2, requires_grad=True)
        assert gradient(other * 2, x).tolist() == [[0.0], [0.0]]
    assert (passes.forward, passes.backward) == (0, 6)


def test_gradient_of_a_gradient():
    x = torch.tensor([[2.0]], requires_grad=True)
    first = gradient((x**3).sum(1), x, create_graph=True)
    assert gradient(first.sum(1), x).tolist() == [[12.0]]
    assert not gradient((x**3).sum(1), x).requires_grad
    values = (x**2).sum(1)
    gradient(values, x, retain_graph=True)
    gradient(values, x)
    with pytest.raises(RuntimeError, match="second time"):
        gradient(values, x)
