"""Strips of images: what stands where, and what is written under it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.errors import InputError
from pellucid.report import to_png
from pellucid.report.pictures import lines
from pellucid.report.strips import CENTRED, SIDE, strip

CAPTIONS = ("untouched", "p=8", "p=1024")


@pytest.fixture
def images(generator):
    return torch.rand(3, 2, 3, 8, 8, generator=generator)


@pytest.fixture
def said():
    return {"normal": torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]), "robust": torch.full((3, 2), 0.25)}


def test_rows_are_images_and_networks_and_columns_versions(images, said):
    found = strip(images, CAPTIONS, said, classes=("cat", "cake"), settings={"robust": "key"})
    assert found.column_titles == CAPTIONS
    assert [(row.title, row.note) for row in found.rows] == [
        ("normal", "class cat"), ("robust", "class cat"), ("normal", "class cake"), ("robust", "class cake"),
    ]  # fmt: skip
    assert [picture.caption for picture in found.rows[2].pictures] == list(CAPTIONS)
    assert [picture.confidence for picture in found.rows[2].pictures] == pytest.approx([0.8, 0.6, 0.4])
    assert lines(found.rows[2].pictures[1]) == ["cake · 60.0\u202f%"]
    np.testing.assert_array_equal(found.rows[2].pictures[1].pixels, images[1, 1].permute(1, 2, 0).numpy())
    assert [picture.settings for picture in found.rows[3].pictures] == ["key"] * 3
    assert found.notes == ("Under an image: the probability of its true class.",)


def test_right_predictions_are_marked(images, said):
    right = {"normal": torch.tensor([[True, True], [True, False], [False, False]])}
    found = strip(images, CAPTIONS, said, classes=("cat", "cake"), right=right)
    assert [[picture.right for picture in row.pictures] for row in found.rows] == [
        [True, True, False], [None] * 3, [True, False, False], [None] * 3,
    ]  # fmt: skip


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


def test_a_strip_is_a_picture_as_wide_as_its_columns(images, said):
    wide = Image.open(io.BytesIO(to_png(strip(images, CAPTIONS, said, classes=("cat", "cake")), dpi=50)))
    narrow = Image.open(io.BytesIO(to_png(strip(images[:1], CAPTIONS[:1], classes=("cat", "cake")), dpi=50)))
    assert wide.width > 1.8 * narrow.width
    assert wide.height > 1.8 * narrow.height  # a row for each network


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
