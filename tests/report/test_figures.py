import io
import math
import re
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pellucid.errors import InputError
from pellucid.report import (
    Box,
    BoxFigure,
    BoxPanel,
    Cell,
    Curve,
    CurveFigure,
    Gallery,
    GalleryRow,
    Heatmap,
    HeatmapFigure,
    Panel,
    Picture,
    to_png,
)
from pellucid.report.boxes import shared_range, summarise
from pellucid.report.curves import whole_figure
from pellucid.report.figures import panel_svgs, to_svg
from pellucid.report.looks import luminance, shade, styles
from pellucid.report.pictures import pixels
from pellucid.report.tables import panel_table


@pytest.fixture(params=["curves", "heatmaps", "boxes", "gallery"])
def block(request):
    return request.getfixturevalue(request.param)


def one(curve: Curve, **how) -> CurveFigure:
    return CurveFigure("c", (Panel("p", (curve,), "x", "y", **how),))


def test_every_block_is_a_png_that_repeats_byte_by_byte(block):
    first = to_png(block, dpi=60)
    image = np.asarray(Image.open(io.BytesIO(first)).convert("L"))
    assert image.std() > 5  # something was drawn
    assert to_png(block, dpi=60) == first


def test_every_block_is_an_svg_whose_ids_carry_its_prefix(block):
    text = to_svg(block, "here")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("here-") for name in ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text)) == set(ids)
    assert "http" not in text
    assert text == to_svg(block, "here")


def test_drawing_leaves_the_callers_style_alone_and_does_not_follow_it(curves):
    plain = panel_svgs(curves, "f")
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "black"}):
        assert panel_svgs(curves, "f") == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_intervals_and_printed_values_are_drawn():
    x, y = (0.0, 1.0), (0.5, 0.4)
    bare = panel_svgs(one(Curve("a", x, y, colour="#123456")), "f")[0]
    banded = panel_svgs(one(Curve("a", x, y, (0.4, 0.3), (0.6, 0.5), colour="#123456")), "f")[0]
    printed = panel_svgs(one(Curve("a", x, y, printed=y, colour="#123456")), "f")[0]
    assert "opacity: 0.16" in banded
    assert "opacity: 0.16" not in bare
    assert "stroke-dasharray" in printed
    assert "stroke-dasharray" not in bare
    assert all("#123456" in text for text in (bare, banded, printed))


def test_a_line_is_broken_where_a_value_is_missing():
    def pieces(*y):
        text = panel_svgs(one(Curve("a", tuple(range(len(y))), y, colour="#123456")), "f")[0]
        return re.search(r'<path d="([^"]+)"[^>]*fill: none; stroke: #123456', text)[1].count("M")

    assert pieces(0.1, 0.2, 0.3, 0.4, 0.5) == 1
    assert pieces(0.1, 0.2, None, 0.4, 0.5) == 2


@pytest.mark.parametrize(
    "figure",
    [
        one(Curve("a", (0.1,), (0.5,), (0.4,), (0.6,), printed=(0.7,))),
        one(Curve("a", (), ())),
        one(Curve("a", (0.1, 0.2), (math.nan, None), (None, None), (None, None))),
        one(Curve("a", (0.0, 1.0), (0.0, 1.0)), log_y=True, log_x=True),
        one(Curve("a", (8.0, 1024.0), (3.0, -3.0)), log_x=True, y_range=None),
        CurveFigure("c", (Panel("p", (), "x", "y"),)),
        CurveFigure("c", ()),
        HeatmapFigure("h", ()),
        HeatmapFigure("h", (Heatmap("e", (), (), (), "r", "c"),)),
        HeatmapFigure("h", (Heatmap("e", ("a",), ("a",), ((Cell(2.0),),), "r", "c", lowest=2.0, highest=2.0),)),
        BoxFigure("b", ()),
        BoxFigure("b", (BoxPanel("p", ()), BoxPanel("q", (Box("zeros", (0.0, 0.0)),)))),
        BoxFigure("b", (BoxPanel("p", (Box("nothing", (math.nan,)),), log=False),)),
        Gallery("g", ()),
    ],
)
def test_degenerate_blocks_are_drawn(figure):
    assert to_png(figure, dpi=40).startswith(b"\x89PNG")
    assert to_svg(figure).startswith("<svg")


@pytest.mark.parametrize("top", [0.26, 0.3, 0.6, 2.0, 9.0, 1e3, 1e12])
def test_log_axes_have_ticks_whatever_they_span(top):
    figure = whole_figure(one(Curve("a", (0.0, 1.0), (0.25, top)), log_y=True))
    axis = figure.axes[0].yaxis
    low, high = figure.axes[0].get_ylim()
    assert 2 <= sum(low <= place <= high for place in axis.get_majorticklocs()) <= 8


SATURATION = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1024.0)


def side_by_side(panels: int, networks: int, x=SATURATION, name="PGD-inf: {}/255") -> CurveFigure:
    y = tuple(0.5 for _ in x)
    curves = tuple(Curve(name.format(place), x, y, printed=y) for place in range(networks))
    return CurveFigure("c", tuple(Panel(str(place), curves, "x", "y", log_x=True) for place in range(panels)))


@pytest.mark.parametrize("networks", [1, 2, 5, 11])
@pytest.mark.parametrize("panels", [1, 2, 3])
@pytest.mark.parametrize("name", ["{}", "PGD-inf: {}/255", "a network that has a very, very long name, number {}"])
def test_legends_are_never_cut_off_and_leave_room_for_the_panels(networks, panels, name):
    figure = whole_figure(side_by_side(panels, networks, name=name))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == networks + 1  # "printed in the paper"
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y0 >= 0
    for axes in figure.axes:
        assert axes.get_tightbbox().y0 >= box.y1
        assert axes.get_window_extent().height >= 1.5 * figure.dpi


def test_short_labels_stand_in_more_columns_than_long_ones():
    def rows(name):
        figure = whole_figure(side_by_side(2, 11, name=name))
        figure.draw_without_rendering()
        return len({round(text.get_window_extent().y0) for text in figure.legends[0].get_texts()})

    assert rows("{}") == 2
    assert rows("{}") < rows("PGD-inf: {}/255") < rows("a network with a long name, {}")


@pytest.mark.parametrize("panels", [1, 2, 3])
@pytest.mark.parametrize(
    "levels",
    [SATURATION, (2.0, 4.0, 8.0), tuple(2.0**n for n in range(-4, 8)), (1.0, 1.01, 1.02, 5.0), (0.5,),
     tuple(10.0**n for n in range(-8, 3)), (0.00392157, 0.00784314, 0.0156863, 0.0313725)],
)  # fmt: skip
def test_levels_are_the_ticks_of_a_log_axis_and_their_labels_do_not_touch(panels, levels):
    figure = whole_figure(side_by_side(panels, 1, levels))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_xticks().tolist() == list(levels)
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert len(boxes) >= len(levels) / 2
        assert all(label.get_fontsize() >= 7 for label in axes.get_xticklabels())
        assert axes.get_xticklabels()[0].get_text()
        assert axes.get_xticklabels()[-1].get_text()


def test_many_levels_are_left_to_decades():
    levels = tuple(1.5**n for n in range(13))
    assert len(whole_figure(side_by_side(1, 1, levels)).axes[0].get_xticks()) < 8


def test_powers_of_ten_are_written_as_such():
    figure = whole_figure(side_by_side(1, 1, (1e-6, 1e-2, 1e2)))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10⁻⁶", "0.01", "100"]


def test_long_lines_under_a_picture_keep_their_numbers():
    digit = np.zeros((4, 4))
    said = ("a network with a name that nobody can remember nor write · 93.0\u202f%", "short", "x" * 80)
    text = to_svg(Gallery("g", (GalleryRow("r", (Picture("p", digit, said=said),)),)))
    assert "93.0\u202f%" in text
    assert "…" in text
    assert "nor write" not in text
    assert "x" * 45 not in text


def test_a_picture_has_one_key_of_settings_for_each_line():
    with pytest.raises(InputError, match="sources"):
        Picture("p", np.zeros((4, 4)), said=("a", "b"), sources=("key",))


def test_a_figure_without_numbers_says_so():
    assert "no numbers" in panel_svgs(one(Curve("a", (1.0,), (None,))), "f")[0]


def test_a_table_is_no_figure(table):
    with pytest.raises(InputError, match="Table"):
        to_png(table)


def test_labels_keep_their_looks_and_choices_stand():
    chosen = styles(
        [
            Curve("a", (), ()),
            Curve("b", (), (), colour="darkred", marker="H"),
            Curve("a", (), (), colour="red"),
        ]
    )
    assert chosen["b"] == ("#8b0000", "H")
    assert len(chosen) == 2
    assert chosen["a"][0] != "#ff0000"


def test_text_on_heat_maps_is_legible():
    for value in np.linspace(0, 1, 41):
        dark, light = sorted(luminance(colour) for colour in shade(float(value), 0.0, 1.0))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_summaries_floor_on_a_log_axis_only():
    values = (0.0, 1e-30, 1.0, 3.0, math.nan)
    found = summarise(Box("a", values), BoxPanel("p", (), floor=1e-20))
    assert (found.values, found.at_floor) == (4, 2)
    assert found.mean == pytest.approx(1.0)
    assert found.p5 == pytest.approx(1e-20)
    assert summarise(Box("a", values), BoxPanel("p", (), log=False)).at_floor == 0


def test_long_curves_are_thinned_in_the_table_down_to_their_last_point():
    x = tuple(float(i) for i in range(100))
    table = panel_table(Panel("p", (Curve("a", x, tuple(v / 99 for v in x)),), "step", "accuracy"))
    assert len(table.header) == 17
    assert table.header[-1] == "99"
    assert table.notes == ("16 of 100 points.",)
    assert table.rows[0][-1].value == 1.0


def test_pictures_have_the_colours_they_claim():
    image = pixels(Picture("i", np.array([[0.0, 1.0, 2.0]])))
    assert image.tolist() == [[0, 255, 255]]
    blue, white, red = pixels(Picture("s", np.array([[-1.0, 0.0, 1.0]]), "signed"))[0].astype(int)
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert white.min() > 240
    change = pixels(Picture("d", np.array([[[-0.1, 0.0, 0.1]]]), "difference"))
    assert change.tolist() == [[[0, 128, 255]]]
    half = pixels(Picture("d", np.array([[[-0.1, 0.0, 0.1]]]), "difference", scale=0.2))
    assert half.tolist() == [[[64, 128, 191]]]
    assert pixels(Picture("n", np.array([[math.nan, 0.0]]), "signed"))[0, 0].tolist() == [0xBB] * 3


def test_panels_that_measure_the_same_share_their_range(boxes):
    one = BoxPanel("a", (Box("x", (1e-3, 1e-3)),), "norm")
    two = BoxPanel("b", (Box("x", (20.0, 20.0)),), "norm")
    low, high = shared_range(BoxFigure("c", (one, two)))
    assert low < 1e-3 < 20.0 < high
    assert shared_range(boxes) is None  # a norm and a log-probability
    assert shared_range(BoxFigure("c", (BoxPanel("a", (Box("x", ()),), "norm"),))) is None
