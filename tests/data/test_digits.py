"""The embedded digits: fixed for ever, stratified, disjoint, quick, and alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from pellucid.data import Digits, digits
from pellucid.data.digits import enlarge
from pellucid.errors import DataError, SpecError
from pellucid.spec import from_dict, to_dict

GOLDEN = {
    "train": (1197, "594ab0c682949e8ee9c8410e80b0b6be888e9c5cf58eec43c5eb92481dda1f62"),
    "validation": (200, "16c3173950cb9cf72e7989640742cc61df3abca45933ef8cbc798e3e264ebd21"),
    "test": (400, "f6c13790893374e002a89ea595d29803855ac4129c8f5d21e954665ec04fca21"),
}


@pytest.mark.parametrize("part", GOLDEN)
def test_every_part_is_fixed(part):
    split = Digits().load(part)
    assert (len(split), split.sha256) == GOLDEN[part]
    assert split.shape == (1, 28, 28)
    assert split.pixels.dtype == torch.uint8
    assert split.classes == tuple("0123456789")
    assert split.value_range == (0.0, 1.0)


@pytest.mark.parametrize("part", GOLDEN)
def test_every_class_has_its_share(part):
    labels = Digits().load(part).labels
    everything = torch.from_numpy(load_digits().target).bincount()
    share = everything * len(labels) / 1797
    assert (labels.bincount(minlength=10) - share).abs().max() <= 1


def test_the_parts_are_all_images_once():
    parts = [Digits().load(part) for part in GOLDEN]
    together = torch.cat([split.pixels.flatten(1) for split in parts])
    small = torch.from_numpy(load_digits().images)
    original = enlarge(small.long())[:, None].flatten(1)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, original.numpy()))
    assert len({bytes(row) for row in together.numpy()}) == 1797  # no two alike, so no part shares an image


def test_labels_stay_with_their_images():
    known = load_digits()
    label_of = {
        bytes(image): int(y) for image, y in zip(enlarge(torch.from_numpy(known.images).long()).numpy(), known.target)
    }
    split = Digits().load("test")
    assert [label_of[bytes(image)] for image in split.pixels[:, 0].numpy()] == split.labels.tolist()


def test_enlarging_is_bilinear():
    small = torch.from_numpy(load_digits().images)[:50]
    smooth = F.interpolate(small[:, None] / 16, size=(28, 28), mode="bilinear", align_corners=False) * 255
    assert (enlarge(small.long())[:, None] - smooth).abs().max() <= 0.5 + 1e-9


def test_enlarging_keeps_black_and_white():
    flat = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 16.0)]).long()
    assert enlarge(flat).flatten(1).unique(dim=1).tolist() == [[0], [255]]


def test_images_are_floats_in_the_unit_range():
    split = Digits().load("test")
    images = split.images(torch.tensor([3, 1]))
    assert images.dtype == torch.float32
    assert torch.equal(images, split.pixels[[3, 1]].float() / 255)
    assert torch.equal(split.images(), split.images(slice(None)))
    assert split.images().max() == 1


def test_a_cut_keeps_the_first_images_and_says_so():
    whole, cut = Digits().load("train"), Digits(train=10).load("train")
    assert torch.equal(cut.pixels, whole.pixels[:10])
    assert cut.cut.startswith("the first 10 of: 1,197 of the 1,797")
    assert cut.sha256 != whole.sha256
    assert len(Digits(train=10).load("test")) == 400


def test_both_ways_to_the_stored_digits_agree():
    assert np.array_equal(digits._stored(), digits._asked())


def test_loading_again_gives_the_same_object():
    assert Digits().load("train") is Digits().load("train")


def test_refusals_are_sentences():
    with pytest.raises(DataError, match=r"train, validation and test, not 'valid'"):
        Digits().load("valid")
    with pytest.raises(DataError, match="test part of digits has 400 images, 401 were asked for"):
        Digits(test=401).load("test")
    with pytest.raises(SpecError):
        Digits(test=0)


def test_the_description_goes_through_json():
    assert from_dict("digits", "data") == Digits()
    assert from_dict(to_dict(Digits(train=5))) == Digits(train=5)


def test_digits_import_nothing_that_downloads():
    program = (
        "import sys; from pellucid.data import Digits; Digits().load('test');"
        "names = ('huggingface_hub', 'datasets', 'torchvision', 'sklearn');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
