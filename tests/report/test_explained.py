"""The contact sheet of an explanation: what stands where, and that it stays readable."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.explain import Explanation
from pellucid.report import Gallery, GalleryRow, Picture, render, sheets
from pellucid.report.explained import SIDE, changes_of, maps_of, page, stability_table
from pellucid.report.pairs import map_pixels
from pellucid.report.sheets import SIZE, stacked

NAMES = ("cat", "dog", "a name that is long enough to be broken, and then cut, wherever it is drawn small")
CLASSES = ("predicted", "runner_up", "dog")


def explained(generator, images=3, size=(8, 8), interpreters=("gradient", "cam"), attacked=True, labelled=True):
    """An explanation with made-up numbers; the first CAM is constant."""
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]])[torch.arange(images) % 3]
    x = torch.rand(images, 3, *size, generator=generator)
    maps = {
        name: torch.randn(images, 3, *((3, *size) if name == "gradient" else (4, 4)), generator=generator)
        for name in interpreters
    }
    if "cam" in maps:
        maps["cam"][0, 0] = 1.0
    after = {
        "adversarial": (x + 0.1).clamp(0, 1),
        "probabilities_adversarial": scores.flip(1),
        "maps_adversarial": {name: values.flip(0) for name, values in maps.items()},
        "tau": {name: torch.linspace(-0.5, 0.5, images * 3).view(images, 3) for name in maps},
    }
    return Explanation(
        classes=CLASSES,
        names=NAMES,
        images=x,
        probabilities=scores,
        targets=torch.tensor([[0, 1, 1], [2, 1, 1], [1, 2, 1]])[torch.arange(images) % 3],
        maps=maps,
        labels=torch.arange(images) % 3 if labelled else None,
        decisions=("the last layer",),
        **(after if attacked else {}),
    )


def test_rows_are_images_clean_above_adversarial_and_columns_interpreters_by_class(generator):
    found = explained(generator)
    (sheet,) = maps_of(found, ("a.png", "b.png"))
    assert sheet.column_titles == (
        "image", "gradient: predicted class", "gradient: runner-up", "gradient: class dog",
        "CAM: predicted class", "CAM: runner-up", "CAM: class dog",
    )  # fmt: skip
    assert [(row.title, row.note) for row in sheet.rows[:2]] == [
        ("a.png", "clean, true class cat"), ("a.png", "adversarial, true class cat")
    ]  # fmt: skip
    assert sheet.rows[4].title == "image 2"  # which has no name
    clean, attacked = sheet.rows[2:4]  # the second image
    assert (clean.pictures[0].label, clean.pictures[0].right) == (NAMES[2], False)
    assert clean.pictures[0].confidence == pytest.approx(0.6)
    assert [picture.label for picture in clean.pictures[1:4]] == [NAMES[2], "dog", "dog"]
    assert [picture.confidence for picture in attacked.pictures[1:4]] == pytest.approx([0.1, 0.3, 0.3])
    assert [picture.tau for picture in attacked.pictures[1:4]] == pytest.approx(found.tau["gradient"][1].tolist())
    assert all(picture.tau is None for picture in clean.pictures)
    assert np.array_equal(clean.pictures[2].pixels, map_pixels(found.maps["gradient"][1, 1], (8, 8)))
    assert np.array_equal(attacked.pictures[5].pixels, map_pixels(found.maps_adversarial["cam"][1, 1], (8, 8)))
    assert sheet.notes == ("Clean maps by CAM that are constant, so that nothing is seen and τ is not defined: 1.",)


def test_without_attack_and_labels_there_is_one_row_an_image_and_no_verdict(generator):
    found = explained(generator, attacked=False, labelled=False)
    (sheet,) = maps_of(found)
    assert [(row.title, row.note) for row in sheet.rows] == [("image 0", ""), ("image 1", ""), ("image 2", "")]
    assert all(row.pictures[0].right is None for row in sheet.rows)
    report = page(found, "title")
    assert [section.title for section in report.sections] == ["Maps"]
    assert not any(word in ("τ", "✓ ✗") for word, _ in report.terms)


def test_many_columns_are_parted_not_shrunk(generator):
    found = explained(generator, interpreters=("gradient", "cam", "grad_cam", "smooth_grad"))
    parts = maps_of(found, across=5)
    assert [len(part.column_titles) for part in parts] == [6, 6, 3]
    assert [title for part in parts for title in part.column_titles[1:]][11] == "smooth grad: class dog"
    assert parts[1].caption.endswith("part 2 of 3")
    sheet = Image.open(io.BytesIO(stacked(parts, dpi=100)))
    assert sheet.width >= 6 * SIZE * 100
    assert sheet.height >= 3 * 6 * SIZE * 100


def test_photographs_are_shown_smaller_and_keep_their_shape(generator):
    (sheet, *_) = maps_of(explained(generator, images=1, size=(300, 600)))
    assert len(sheet.column_titles) == 1 + 4
    shapes = {picture.pixels.shape[:2] for row in sheet.rows for picture in row.pictures}
    assert shapes == {(SIDE // 2, SIDE)}
    change = changes_of(explained(generator, images=1, size=(300, 600))).rows[0].pictures[2]
    assert change.pixels.shape == (SIDE // 2, SIDE, 3)


def test_the_page_says_how_many_are_shown_and_what_was_decided(generator):
    found = explained(generator, images=7)
    report = page(found, "title", limit=5)
    assert "The first 5 of 7 images." in report.sections[0].text
    assert "Decided: the last layer." in report.sections[0].text
    html = render(report)
    assert html.count("<img ") == 5 * 2 * (1 + 6) + 5 * 3
    table = stability_table(found)
    assert [row[:2] for row in table.rows][:2] == [("gradient", "predicted class"), ("gradient", "runner-up")]
    kept = found.kept
    expected = found.tau["gradient"][kept, 0].mean()
    assert table.rows[0][2].value == pytest.approx(float(expected))
    assert table.rows[0][4].value == int(kept.sum())


def test_a_very_tall_sheet_is_one_that_readers_open(generator, monkeypatch):
    monkeypatch.setattr(sheets, "_TALLEST", 900)
    parts = maps_of(explained(generator, images=6))
    assert 800 < Image.open(io.BytesIO(stacked(parts, dpi=150))).height <= 900


def test_a_sheet_shows_the_pixels_of_its_pictures(generator):
    """At 100 dots an inch a picture of five pixels has squares of 25: their middles have its colours."""
    seen = torch.rand(5, 5, generator=generator).numpy()
    wide = Picture("wide", seen[:2])
    gallery = Gallery("one", (GalleryRow("row", (None, Picture("image", seen), wide)),))
    sheet = np.asarray(Image.open(io.BytesIO(stacked((gallery,), dpi=100))))
    left = round(100 * (sheets._LEFT + SIZE + sheets._GAP))
    top = 15
    found = sheet[top + 12 : top + 125 : 25, left + 12 : left + 125 : 25, 0]
    assert np.abs(found - 255 * seen).max() <= 2
    found = sheet[top + 38 + 12 : top + 38 + 50 : 25, left + 139 + 12 : left + 139 + 125 : 25, 0]
    assert np.abs(found - 255 * seen[:2]).max() <= 2
