"""Panels of maps: whose map stands where, and on which scale it is drawn."""

import numpy as np
import pytest
import torch

from pellucid.errors import InputError
from pellucid.report.panels import HOW, magnitudes, panel
from pellucid.report.pictures import lines
from pellucid.report.strips import CENTRED

COLUMNS = ("untouched", "p=8")


@pytest.fixture
def images(generator):
    return torch.rand(2, 3, 10, 10, generator=generator)


@pytest.fixture
def maps(generator):
    return {"normal": torch.randn(2, 3, 10, 10, generator=generator), "robust": torch.rand(2, 10, 10)}


def test_rows_are_the_images_and_then_the_networks(images, maps):
    found = panel(images, maps, COLUMNS, title="cat", settings={"robust": "key"})
    assert found.column_titles == COLUMNS
    assert [row.title for row in found.rows] == ["cat", "normal", "robust"]
    assert [picture.kind for row in found.rows for picture in row.pictures] == ["image"] * 2 + ["unsigned"] * 4
    np.testing.assert_array_equal(found.rows[0].pictures[1].pixels, images[1].permute(1, 2, 0))
    assert [picture.settings for picture in found.rows[2].pictures] == ["key"] * 2
    assert found.notes == (HOW,)


def test_a_map_is_its_magnitudes_over_their_99th_percentile_cut_at_one(images, maps):
    found = panel(images, maps, COLUMNS)
    summed = maps["normal"][1].abs().sum(0).numpy()
    expected = np.minimum(summed / np.percentile(summed, 99), 1)
    np.testing.assert_allclose(found.rows[1].pictures[1].pixels, expected, rtol=1e-5)
    assert (found.rows[1].pictures[1].pixels == 1).sum() == 1  # of a hundred pixels one is brighter
    np.testing.assert_allclose(panel(images, {"n": 7 * maps["normal"]}, COLUMNS).rows[1].pictures[1].pixels, expected,
                               rtol=1e-5)  # fmt: skip


def test_the_least_value_is_not_moved_to_black():
    even = torch.full((1, 4, 4), -2.0)
    even[0, 0, 0] = 4
    drawn, constant = magnitudes(even)
    assert drawn.min() == pytest.approx(0.5, abs=0.1)  # half of the largest, not 0
    assert not constant.any()


def test_coarse_maps_are_drawn_at_the_size_of_their_image(images):
    coarse = torch.zeros(2, 5, 5)
    coarse[:, 1, 3] = 1
    pixels = panel(images, {"cam": coarse}, COLUMNS).rows[1].pictures[0].pixels
    assert pixels.shape == (10, 10)
    assert np.unravel_index(pixels.argmax(), pixels.shape) in {(2, 6), (2, 7), (3, 6), (3, 7)}


def test_probabilities_of_the_true_class_stand_under_the_maps(images, maps):
    chances = {"normal": torch.tensor([0.75, 0.125])}
    found = panel(images, maps, COLUMNS, label="cat", probabilities=chances)
    assert [lines(picture) for picture in found.rows[1].pictures] == [["cat · 75.0\u202f%"], ["cat · 12.5\u202f%"]]
    assert [lines(picture) for picture in found.rows[2].pictures] == [[], []]
    assert found.notes[1] == "Under a map: the probability of the true class."


def test_maps_of_nothing_and_images_about_zero_are_said(images, maps):
    maps["robust"][1] = 0
    images[1] -= images[1].mean()
    found = panel(images, maps, COLUMNS)
    assert found.notes == (HOW, CENTRED, "Maps of robust that are zero everywhere: 1.")
    assert not found.rows[2].pictures[1].pixels.any()


def test_other_numbers_are_refused(images, maps):
    for wrong in ({"columns": ("untouched",)}, {"maps": {"n": maps["normal"][:1]}}, {"images": images[0]},
                  {"probabilities": {"normal": torch.rand(3)}}):  # fmt: skip
        with pytest.raises(InputError, match="a panel needs"):
            panel(**({"images": images, "maps": maps, "columns": COLUMNS} | wrong))
