"""The page of `pellucid bias`: its sections, and which numbers stand in them."""

import pytest
import torch

from pellucid.metrics import Interval, ShapeBias
from pellucid.report import Cell, CurveFigure, Settings, Table, render
from pellucid.report.bias_curves import levels_of
from pellucid.report.bias_page import Bias, curves_of, page, shape_table
from pellucid.report.panels import panel
from pellucid.report.strips import strip
from pellucid.transforms import Edges, Saturation

TRANSFORMS = (Saturation(p=8), Saturation(p=64), Edges())
TITLES = ("saturation p=8", "saturation p=64", "edges")


def shares(*values):
    return [Interval(value, value - 0.01, value + 0.01) for value in values]


FOUND = Bias(
    images="100 test images of digits",
    transforms=TITLES,
    levels=levels_of(TRANSFORMS),
    accuracy={"a": shares(0.91, 0.82, 0.73, 0.64), "b": shares(0.5, 0.4, 0.3, 0.2)},
    on_correct={"a": shares(0.88, 0.77, 0.66), "b": shares(0.8, 0.6, 0.4)},
    known={"a": 91, "b": 1050},
)
SHAPE = {"a": ShapeBias(Interval(0.25, 0.2, 0.3), 5, 15, 80)}
MAPS = {"sparsity": {"a": shares(0.123, 0.456), "b": shares(0.2, 0.3)}}


def tables(report):
    return {block.caption: block for part in report.sections for block in part.blocks if isinstance(block, Table)}


def test_sections_hold_what_was_measured():
    report = page(FOUND)
    assert [part.title for part in report.sections] == ["What is still recognised", "Accuracy"]
    assert report.facts == (("Images", "100 test images of digits"), ("Networks", "a, b"))
    found = tables(report)
    kept, whole = found["Accuracy on correctly classified images"], found["Accuracy on all images"]
    assert [row[0] for row in kept.rows] == list(TITLES)
    assert kept.rows[1][1] == Cell(*shares(0.77)[0])
    assert kept.notes == ("Images that are classified correctly untouched: a 91, b 1,050.",)
    assert [row[0] for row in whole.rows] == ["untouched", *TITLES]
    assert whole.rows[0][2] == Cell(*shares(0.5)[0])
    (drawn,) = (block for block in report.sections[0].blocks if isinstance(block, CurveFigure))
    assert drawn.panels[0].curves[1].y == (0.8, 0.6)  # of b, along p; edges are on no scale


def test_without_a_scale_there_is_no_curve():
    alone = Bias(**(vars(FOUND) | {"levels": ()}))
    assert curves_of(alone) is None
    assert [type(block) for block in page(alone).sections[0].blocks] == [Table]


def test_terms_say_in_words_what_is_shown_and_no_more():
    assert [word for word, _ in page(FOUND).terms] == [
        "accuracy on correctly classified images",
        "accuracy",
        "probability",
    ]
    more = page(Bias(**(vars(FOUND) | {"shape": SHAPE, "maps": MAPS, "mapped": ("edges",)})))
    assert [word for word, _ in more.terms][3:] == ["shape bias", "sparsity", "contours", "similarity"]


def test_means_of_batches_are_called_so():
    assert "mean of the ratios of batches of 32 images" in page(Bias(**(vars(FOUND) | {"batch": 32}))).sections[0].text
    assert "batches" not in page(FOUND).sections[0].text


def test_the_shape_bias_stands_with_its_counts():
    assert shape_table(SHAPE).rows == (("a", Cell(0.25, 0.2, 0.3), Cell(5), Cell(15), Cell(80)),)


def test_measures_of_maps_begin_with_the_untouched_images():
    table = tables(page(Bias(**(vars(FOUND) | {"maps": MAPS, "mapped": ("edges",)}))))["Sparsity"]
    assert [row[0] for row in table.rows] == ["untouched", "edges"]
    assert table.rows[1][1] == Cell(*shares(0.456)[0], style="decimals")


@pytest.mark.parametrize("key", ["settings-of-a", None])
def test_the_page_shows_everything_and_links_numbers_to_settings(generator, key):
    images = torch.rand(2, 1, 3, 8, 8, generator=generator)
    strips = (strip(images, ("untouched", "p=8"), {"a": torch.rand(2, 1)}, classes=("cat",), caption="Strip of cats"),)
    panels = (panel(images[:, 0], {"a": torch.rand(2, 8, 8)}, ("untouched", "p=8"), caption="Panel of cats"),)
    text = render(
        page(
            Bias(**(vars(FOUND) | {"shape": SHAPE, "maps": MAPS, "mapped": ("edges",)})),
            strips=strips,
            panels=panels,
            settings=(Settings("settings-of-a", "how a was measured", (("seed", "0"),)),),
            keys=None if key is None else {"a": key},
        )
    )
    for words in ("Strip of cats", "Panel of cats", "Shape bias", "Sparsity", "77.0\u202f%", "0.456", "25.0\u202f%"):
        assert words in text
    assert ("Settings: how a was measured" in text) is (key is not None)


def test_shape_bias_and_maps_have_settings_of_their_own():
    whole = Bias(**(vars(FOUND) | {"shape": SHAPE, "maps": MAPS, "mapped": ("edges",)}))
    found = tables(page(whole, keys={"a": "judged"}, keys_of_shape={"a": "styled"}, keys_of_maps={"a": "mapped"}))
    first = {caption: table.rows[0][1].settings for caption, table in found.items()}
    assert first == {
        "Accuracy on correctly classified images": "judged",
        "Accuracy on all images": "judged",
        "Shape bias": "styled",
        "Sparsity": "mapped",
    }
