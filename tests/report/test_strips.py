"""Strips of images: what stands where, and what is written under it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.errors import InputError
from pellucid.report import to_png
from pellucid.report.pictures import description, lines, spoken
from pellucid.report.strips import CENTRED, MARKED, SAID, SIDE, strip

CAPTIONS = ("untouched", "p=8", "p=1024")


@pytest.fixture
def images(generator):
    return torch.rand(3, 2, 3, 8, 8, generator=generator)


@pytest.fixture
def said():
    return {"normal": torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]), "robust": torch.full((3, 2), 0.25)}


def test_rows_are_images_and_columns_versions_and_every_network_has_a_line(images, said):
    found = strip(images, CAPTIONS, said, classes=("cat", "cake"), settings={"robust": "key"})
    assert found.column_titles == CAPTIONS
    assert [(row.title, row.note) for row in found.rows] == [("cat", ""), ("cake", "")]
    cake = found.rows[1].pictures
    assert [picture.caption for picture in cake] == list(CAPTIONS)
    assert [picture.said for picture in cake] == [
        (f"normal · {share}\u202f%", "robust · 25.0\u202f%") for share in ("80.0", "60.0", "40.0")
    ]
    np.testing.assert_array_equal(cake[1].pixels, images[1, 1].permute(1, 2, 0).numpy())
    assert spoken(cake[1], "p=8") == [("normal · 60.0\u202f%", "", None), ("robust · 25.0\u202f%", "", "key")]
    assert found.notes == (SAID,)


def test_right_and_wrong_predictions_are_marked(images, said):
    right = {"normal": torch.tensor([[True, True], [True, False], [False, False]])}
    found = strip(images, CAPTIONS, said, classes=("cat", "cake"), right=right)
    tones = [[[tone for _, tone, _ in spoken(one, one.caption)] for one in row.pictures] for row in found.rows]
    assert tones == [
        [["right", ""], ["right", ""], ["wrong", ""]], [["right", ""], ["wrong", ""], ["wrong", ""]],
    ]  # fmt: skip
    wrong = found.rows[1].pictures[1]
    assert lines(wrong) == ["normal · 60.0\u202f%\u00a0✗", "robust · 25.0\u202f%"]
    assert spoken(wrong, "p=8")[0][0] == "normal · 60.0\u202f%"  # the page draws the mark itself
    assert found.notes == (SAID, MARKED)


def test_descriptions_say_what_every_network_makes_of_an_image(images, said):
    found = strip(images, CAPTIONS, said, classes=("cat", "cake"), right={"robust": torch.zeros(3, 2, dtype=bool)})
    assert description(found.rows[0].pictures[2], found.rows[0].title) == (
        "cat: p=1024, normal · 50.0\u202f%, robust · 25.0\u202f%\u00a0✗"
    )


def test_a_missing_probability_is_shown_as_missing(images, said):
    found = strip(images, CAPTIONS, said | {"robust": torch.full((3, 2), torch.nan)}, classes=("cat", "cake"))
    assert found.rows[0].pictures[0].said[1] == "robust · —"


def test_without_networks_there_is_a_row_an_image_and_nothing_under_it(images):
    found = strip(images, CAPTIONS, classes=("cat", "cake"))
    assert [row.title for row in found.rows] == ["cat", "cake"]
    assert all(lines(picture) == [] for row in found.rows for picture in row.pictures)
    assert found.notes == ()


def test_an_image_without_its_mean_is_drawn_about_grey(images):
    images[2, 0] -= images[2, 0].mean((1, 2), keepdim=True)  # a high pass
    images[1] = 2 * images[1] - 0.2  # a filter that overshoots, its mean kept
    found = strip(images, CAPTIONS, classes=("cat", "cake"))
    np.testing.assert_allclose(found.rows[0].pictures[2].pixels, images[2, 0].permute(1, 2, 0) / 2 + 0.5, atol=1e-6)
    np.testing.assert_array_equal(found.rows[0].pictures[1].pixels, images[1, 0].permute(1, 2, 0))
    np.testing.assert_array_equal(found.rows[1].pictures[2].pixels, images[2, 1].permute(1, 2, 0))
    assert found.notes == (CENTRED,)


def test_large_images_are_drawn_no_larger_than_a_page_shows_them(generator):
    images = torch.rand(1, 1, 3, 224, 336, generator=generator)
    pixels = strip(images, ("untouched",), classes=("cat",)).rows[0].pictures[0].pixels
    assert pixels.shape == (SIDE * 2 / 3, SIDE, 3)
    means = images[0, 0].unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4)).permute(1, 2, 0)
    np.testing.assert_allclose(pixels, means, rtol=1e-5)


def test_a_strip_is_as_wide_as_its_versions_and_as_tall_as_its_images_and_lines(images, said):
    def size(versions, count, **networks):
        shares = {name: own[:versions, :count] for name, own in networks.items()}
        found = strip(images[:versions, :count], CAPTIONS[:versions], shares, classes=("cat", "cake")[:count])
        return Image.open(io.BytesIO(to_png(found, dpi=50))).size

    one, wide, tall = size(1, 1, **said), size(3, 1, **said), size(1, 2, **said)
    assert wide[0] > 1.8 * one[0]
    assert wide[1] == one[1]
    assert tall[1] > 1.8 * one[1]
    more = size(1, 2, **said, third=said["robust"])
    assert tall[1] < more[1] < 1.2 * tall[1]  # a line, not a row, for each network


@pytest.mark.parametrize("wrong", ["captions", "classes", "probabilities", "images"])
def test_other_shapes_are_refused(images, said, wrong):
    parts = {"images": images, "captions": CAPTIONS, "probabilities": said, "classes": ("cat", "cake")}
    parts[wrong] = {
        "captions": CAPTIONS[:2],
        "classes": ("cat",),
        "probabilities": {"normal": torch.rand(2, 3)},
        "images": images[0],
    }[wrong]
    with pytest.raises(InputError, match="a strip needs"):
        strip(**parts)
