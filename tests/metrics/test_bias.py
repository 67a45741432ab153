"""Accuracy on images known untouched, and shape bias, against counting one image at a time."""

import math

import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics import Interval, accuracy_on_correct, bootstrap_mean, shape_bias, wilson


@pytest.fixture
def drawn(generator):
    """Predictions before and after a change, and labels: some right, some wrong, in every combination."""
    labels = torch.randint(0, 3, (150,), generator=generator)
    clean, changed = (
        torch.where(torch.rand(150, generator=generator) < right, labels, (labels + 1) % 3) for right in (0.7, 0.5)
    )
    return clean, changed, labels


def test_the_pooled_share_is_counted_among_those_that_were_right(drawn):
    right = still = 0
    for before, after, label in zip(*(values.tolist() for values in drawn)):
        right += before == label
        still += before == label == after
    assert 0 < still < right < 150
    assert accuracy_on_correct(*drawn) == wilson(still, right)
    assert accuracy_on_correct(*drawn, confidence=0.99) == wilson(still, right, 0.99)


def test_nothing_changed_is_one_and_images_never_right_do_not_count(drawn):
    clean, changed, labels = drawn
    assert accuracy_on_correct(clean, clean, labels).value == 1
    mended = torch.where(clean == labels, changed, labels)  # what was wrong becomes right: no difference
    assert accuracy_on_correct(clean, mended, labels) == accuracy_on_correct(*drawn)
    assert math.isnan(accuracy_on_correct((labels + 1) % 3, labels, labels).value)


def test_batches_are_the_mean_of_their_own_ratios(drawn):
    clean, changed, labels = drawn
    ratios = []
    for first in range(0, 150, 32):  # the last has 22 images
        part = slice(first, first + 32)
        right = clean[part] == labels[part]
        ratios.append(int((right & (changed[part] == labels[part])).sum()) / int(right.sum()))
    found = accuracy_on_correct(*drawn, batch=32)
    assert len(ratios) == 5
    assert found.value == pytest.approx(sum(ratios) / 5)
    assert found == bootstrap_mean(ratios)
    assert found.value != pytest.approx(accuracy_on_correct(*drawn).value, abs=1e-4)
    assert accuracy_on_correct(*drawn, batch=150).value == accuracy_on_correct(*drawn).value


def test_a_batch_without_a_right_image_makes_the_mean_unknown_unless_it_is_skipped():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    clean = torch.tensor([0, 0, 0, 0, 2, 0])  # the second of three batches has none
    changed = torch.tensor([0, 1, 1, 1, 2, 2])
    assert math.isnan(accuracy_on_correct(clean, changed, labels, batch=2).value)
    assert accuracy_on_correct(clean, changed, labels, batch=2, empty="skip").value == (0.5 + 1) / 2
    assert accuracy_on_correct(clean, changed, labels).value == pytest.approx(2 / 3)


def test_shape_bias_is_counted_one_image_at_a_time(generator):
    predicted, shape, texture, clean = torch.randint(0, 4, (4, 400), generator=generator)
    counts = {True: [0, 0, 0], False: [0, 0, 0]}  # whether only images known untouched
    for p, s, t, c in zip(*(values.tolist() for values in (predicted, shape, texture, clean))):
        if s != t:
            place = 0 if p == s else 1 if p == t else 2
            counts[False][place] += 1
            counts[True][place] += c == s
    for known, (by_shape, by_texture, neither) in counts.items():
        found = shape_bias(predicted, shape, texture, clean=clean if known else None)
        assert found == (wilson(by_shape, by_shape + by_texture), by_shape, by_texture, neither)


def test_the_ends_of_shape_bias():
    shape, texture = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    assert shape_bias(shape, shape, texture).bias.value == 1
    assert shape_bias(texture, shape, texture).bias.value == 0
    undecided = shape_bias(torch.tensor([3, 3, 3]), shape, texture)
    assert isinstance(undecided.bias, Interval)
    assert math.isnan(undecided.bias.value)
    assert undecided[1:] == (0, 0, 3)
    agreeing = shape_bias(shape, shape, shape)  # cues that agree say nothing
    assert agreeing[1:] == (0, 0, 0)


def test_refusals():
    labels = torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"clean, predicted, labels must all be \(N,\); got \(2,\), \(1,\), \(2,\)"):
        accuracy_on_correct(labels, labels[:1], labels)
    with pytest.raises(InputError, match="must all be"):
        accuracy_on_correct(labels[None], labels[None], labels[None])
    for wrong in ({"batch": 0}, {"batch": 2, "empty": "drop"}):
        with pytest.raises(InputError, match="batch must be at least 1 and empty one of nan, skip"):
            accuracy_on_correct(labels, labels, labels, **wrong)
    with pytest.raises(InputError, match="predicted, shape, texture"):
        shape_bias(labels, labels, labels[:1])
    with pytest.raises(InputError, match="clean, shape"):
        shape_bias(labels, labels, labels, clean=labels[:1])
