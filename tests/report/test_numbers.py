import math

import numpy as np
import pytest

from pellucid.errors import InputError
from pellucid.report import Cell, Curve, Heatmap, Picture, Table, to_markdown
from pellucid.report.numbers import number, one_line, power_of_ten, written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05134, "0.0513"),
        (0.00869, "0.00869"),
        (9.996, "10.00"),
        (37.24, "37.2"),
        (1234.5, "1,234"),
        (-2.5e-7, "−2.50·10⁻⁷"),
        (3e8, "3.00·10⁸"),
        (1200, "1,200"),
        (math.inf, "∞"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_cells_in_one_line():
    assert one_line(Cell(0.973, 0.961, 0.982, printed=0.99)) == "97.3\u202f% [96.1–98.2] (paper: 99.0)"
    assert one_line(Cell(-0.4, -0.5, 0.1, style="number")) == "−0.400 [−0.500 to 0.100]"
    assert one_line(Cell(math.nan, printed=0.5)) == "— (paper: 50.0)"
    assert one_line(Cell("undefined")) == "undefined"


def test_bounds_that_are_whole_numbers_are_still_percentages():
    assert written(Cell(0.99, 0, 1)).interval == "0.0–100.0"


def test_a_missing_bound_is_no_interval():
    assert written(Cell(0.5, 0.4, None)).interval == written(Cell(0.5, math.nan, 0.6)).interval == ""


def test_ticks_between_powers_are_written_in_full():
    assert [power_of_ten(v) for v in (1e-20, 10.0, 5e-20)] == ["10⁻²⁰", "10¹", "5.00·10⁻²⁰"]


def test_markdown(table):
    lines = to_markdown(table).splitlines()
    assert lines[0] == "**Accuracy**"
    assert lines[2:4] == ["| network | clean | note |", "| --- | ---: | --- |"]
    assert lines[4].startswith("| &lt;b&gt;&")
    assert "97.3\u202f% [96.1–98.2] (paper: 99.2)" in lines[4]
    assert lines[5] == "| absent | — |  |"
    assert lines[-1] == "Wilson intervals."


def test_markdown_keeps_its_columns_whatever_the_names_are():
    text = to_markdown(Table("t", ("a", "b"), (("x|y\nz", Cell(1)),)))
    assert text.splitlines()[-1] == "| x\\|y z | 1 |"


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="row has 1"):
        Table("t", ("a", "b"), (("only",),))
    with pytest.raises(InputError, match="low has 1"):
        Curve("c", (0.0, 1.0), (0.5, 0.5), low=(0.4,))
    with pytest.raises(InputError, match="'h'"):
        Heatmap("h", ("a",), ("a", "b"), ((Cell(1.0),),), "", "")
    with pytest.raises(InputError, match=r"\(2, 4, 4\)"):
        Picture("p", np.zeros((2, 4, 4)))
