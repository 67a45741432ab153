"""Accuracy along levels: which number lands where, whose colour is whose, what a scale is."""

import math

import pytest

from pellucid.metrics import Interval
from pellucid.report import Cell, to_png
from pellucid.report.bias_curves import bias_curves, bias_table, levels_of, looks_of, transform_title
from pellucid.transforms import (
    Edges,
    Grayscale,
    HighPass,
    LowPass,
    PatchShuffle,
    RandomFourier,
    Saturation,
    Silhouette,
)

TRANSFORMS = (Saturation(p=8), PatchShuffle(k=4), Saturation(p=0.25), Edges(), Saturation(p=1024), PatchShuffle(k=2))
PAPER = ("Normal", "Underfit", "PGD-inf: 8", "PGD-inf: 4", "PGD-inf: 2", "PGD-inf: 1", "PGD-L2: 12", "PGD-L2: 8",
         "PGD-L2: 4", "FGSM: 8", "FGSM: 4")  # fmt: skip


def share(value):
    return Interval(value, value - 0.1, value + 0.1)


RESULTS = {
    "a": [share(0.1 * place + 0.1) for place in range(6)],
    "b": [share(0.7)] * 5 + [Interval(math.nan, math.nan, math.nan)],
}


def test_scales_are_the_numbers_along_which_alike_transformations_differ():
    saturation, shuffle = levels_of(TRANSFORMS)
    assert (saturation.title, saturation.values, saturation.places) == ("saturation", (0.25, 8, 1024), (2, 0, 4))
    assert (shuffle.title, shuffle.values, shuffle.places) == ("patch shuffle", (2, 4), (5, 1))
    assert saturation.log
    assert shuffle.log
    assert levels_of((Saturation(p=8), Edges(), Grayscale(), Silhouette())) == ()  # one level is no scale


def test_transformations_that_differ_in_more_than_a_number_share_no_scale():
    disc, star = (tuple(LowPass(radius=radius, form=form) for radius in (2, 4)) for form in ("disc", "code"))
    filters = (*disc, LowPass(share=0.5), *star, HighPass(radius=2), RandomFourier(drop=0), RandomFourier(drop=0.5))
    found = levels_of(filters)
    assert [(one.title, one.places) for one in found] == [
        ("low pass", (0, 1)), ("low pass form=code", (3, 4)), ("random Fourier", (6, 7)),
    ]  # fmt: skip
    assert not found[2].log  # 0 is on no log axis


def test_titles_say_the_level_even_where_it_is_the_default():
    assert transform_title(RandomFourier()) == "random Fourier drop=0.1"
    assert transform_title(LowPass(radius=8)) == "low pass radius=8"
    assert transform_title(HighPass(share=0.25, clip=True)) == "high pass share=0.25 clip=True"
    assert transform_title(Grayscale()) == "grayscale"


def test_every_share_stands_at_its_level_with_its_interval():
    figure = bias_curves(levels_of(TRANSFORMS), RESULTS, printed={"b": [0.2, 0.4, 0.1, None, 0.3, None]})
    saturation, shuffle = figure.panels
    a, b = saturation.curves
    assert (a.label, a.x) == ("a", (0.25, 8, 1024))
    assert a.y == pytest.approx((0.3, 0.1, 0.5))  # the third, the first and the fifth transformation
    assert a.low == pytest.approx((0.2, 0.0, 0.4))
    assert a.high == pytest.approx((0.4, 0.2, 0.6))
    assert (a.printed, b.printed) == (None, (0.1, 0.2, 0.3))
    assert saturation.log_x
    assert saturation.x_label == "p (2 changes nothing)"
    assert shuffle.curves[0].y == pytest.approx((0.6, 0.2))
    assert math.isnan(shuffle.curves[1].y[0])
    assert to_png(figure, dpi=30)[:4] == b"\x89PNG"


def test_a_family_has_one_colour_and_every_network_its_own_looks():
    looks = looks_of(PAPER)
    colours = {name: looks[name][0] for name in PAPER}
    assert len({colours[name] for name in PAPER if name.startswith("PGD-inf")}) == 1
    assert len({colours[name] for name in PAPER if name.startswith("PGD-L2")}) == 1
    assert len(set(colours.values())) == 5  # normal, underfit, two norms, FGSM
    assert len(set(looks.values())) == 11
    figure = bias_curves(levels_of(TRANSFORMS), dict.fromkeys(PAPER, RESULTS["a"]))
    for panel in figure.panels:
        assert {curve.label: curve.colour for curve in panel.curves} == colours


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("pgd_8", "pgd_4"), True),
        (("pgd eps=8/255", "pgd eps=0.1"), True),
        (("int w1e-2", "int2"), False),
        (("int", "int2"), False),
        (("PGD-linf: 8", "PGD-l2: 8"), False),
        (("8", "4"), False),  # names that are numbers
    ],
)
def test_a_family_is_the_name_without_its_numbers(names, alike):
    looks = looks_of(names)
    assert (looks[names[0]][0] == looks[names[1]][0]) is alike


def test_a_table_has_a_row_a_transformation_and_a_column_a_network():
    titles = tuple(map(transform_title, TRANSFORMS))
    table = bias_table(titles, RESULTS, caption="c", settings={"a": "key"})
    assert table.header == ("images", "a", "b")
    assert [row[0] for row in table.rows][:2] == ["saturation p=8", "patch shuffle k=4"]
    assert table.rows[1][1] == Cell(*RESULTS["a"][1], settings="key")
    assert table.rows[0][2] == Cell(*RESULTS["b"][0])
