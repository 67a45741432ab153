"""A published draw of test images: numpy's legacy permutation, in its order, and nothing else changed."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pellucid.data import Digits, Drawn
from pellucid.errors import DataError, SpecError
from pellucid.spec import digest, from_dict, to_dict


@pytest.fixture(scope="module")
def whole():
    return Digits().load("test")


@pytest.mark.parametrize("seed", [99, 0, 2**32 - 1])
def test_rows_are_those_of_the_legacy_generator(whole, seed):
    rows = np.random.RandomState(seed).permutation(400)[:200]
    drawn = Drawn(of=Digits(), seed=seed).load("test")
    assert len(drawn) == 200
    assert torch.equal(drawn.pixels, whole.pixels[rows])
    assert torch.equal(drawn.labels, whole.labels[rows])


def test_the_default_is_what_the_authors_seed_gives():
    """np.random.seed(99); np.random.permutation(n)[:200], through the global generator as in their scripts."""
    state = np.random.get_state()
    try:
        np.random.seed(99)
        rows = np.random.permutation(400)[:200]
    finally:
        np.random.set_state(state)
    assert rows[:5].tolist() == [61, 348, 163, 7, 275]
    before = np.random.get_state()[1].copy()
    drawn = Drawn(of=Digits()).load("test")
    assert torch.equal(drawn.pixels, Digits().load("test").pixels[rows])
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_other_parts_are_left_alone(part):
    assert Drawn(of=Digits(), images=3).load(part) is Digits().load(part)


def test_more_images_than_there_are_are_all_of_them_in_another_order(whole):
    drawn = Drawn(of=Digits(test=50), images=200).load("test")
    some = Digits(test=50).load("test")
    assert len(drawn) == 50
    assert sorted(map(bytes, drawn.pixels.numpy())) == sorted(map(bytes, some.pixels.numpy()))
    assert not torch.equal(drawn.pixels, some.pixels)
    assert "50 drawn" in drawn.sha256


def test_it_says_what_it_is(whole):
    drawn = Drawn(of=Digits(), images=7, seed=3).load("test")
    assert drawn.cut == f"7 images drawn with numpy's RandomState(3) from {whole.cut}"
    kept = ("name", "part", "classes", "source", "value_range", "masks", "labelled", "names")
    assert [getattr(drawn, name) for name in kept] == [getattr(whole, name) for name in kept]
    others = [Drawn(of=Digits(), images=7, seed=4), Drawn(of=Digits(), images=8, seed=3), Drawn(of=Digits(test=300))]
    known = {whole.sha256, drawn.sha256, *(other.load("test").sha256 for other in others)}
    assert len(known) == 5
    assert Drawn(of=Digits(), images=7, seed=3).load("test").sha256 == drawn.sha256


def test_masks_and_names_go_with_their_images(monkeypatch, whole):
    masks = whole.pixels[:, 0] > 100
    names = tuple(f"{n}.png" for n in range(len(whole)))

    def load(self, part):
        return dataclasses.replace(whole, masks=masks, names=names)

    monkeypatch.setattr(Digits, "load", load)
    drawn = Drawn(of=Digits(), images=20).load("test")
    assert torch.equal(drawn.masks, drawn.pixels[:, 0] > 100)
    rows = np.random.RandomState(99).permutation(400)[:20]
    assert drawn.names == tuple(f"{n}.png" for n in rows)


def test_descriptions():
    drawn = Drawn(of=Digits(test=50), images=20)
    assert from_dict(json.loads(json.dumps(to_dict(drawn)))) == drawn
    assert from_dict({"data": "drawn", "of": "digits test=50", "images": "20"}) == drawn
    assert digest(drawn) != digest(Drawn(of=Digits(test=50), images=20, seed=98))
    assert Drawn(of=Digits()) == Drawn(of=Digits(), images=200, seed=99)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(SpecError, match="below 2\\^32"):
        Drawn(of=Digits(), seed=2**32)
    with pytest.raises(SpecError, match="images"):
        Drawn(of=Digits(), images=0)
    with pytest.raises(SpecError, match="of"):
        Drawn(of="pgd")
    with pytest.raises(DataError, match="parts"):
        Drawn(of=Digits()).load("all")
