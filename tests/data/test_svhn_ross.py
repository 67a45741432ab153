"""SVHN as Ross & Doshi-Velez prepare it, on made-up sets in the hub's layout."""

import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data import SVHNRoss, converted_eps, svhn
from pellucid.data.svhn import contrast_normalised, grey_of
from pellucid.errors import DataError
from pellucid.maths.decolorize import decolorized
from pellucid.rng import Stream, derive

from .writing import picture, pixels_of, write

DIGITS = [str(i) for i in range(10)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(svhn, "HELD", {"train": 4, "extra": 2})
    svhn._prepared.cache_clear()
    return tmp_path


def numbered(role: int, i: int) -> bytes:
    """A picture whose first pixel says which it is."""
    pixels = np.random.default_rng(1000 * role + i).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    pixels[0, 0] = (role, i // 256, i % 256)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make(root, sizes, home="svhn/cropped_digits"):
    held = {}
    for number, (split, n) in enumerate(sizes.items()):
        images = [numbered(number, i) for i in range(n)]
        labels = [(i * i + i // 3) % 10 if i >= 100 else i % 10 for i in range(n)]
        write(root / home / f"{split}-00000-of-00001.parquet", images, labels, names=DIGITS)
        held[split] = images, torch.tensor(labels)
    return held


def luma(data: bytes) -> np.ndarray:
    return np.tensordot([0.2989, 0.5870, 0.1140], pixels_of(data).astype(float), 1)


def normal(data: bytes) -> np.ndarray:
    grey = luma(data)
    return (grey - grey.mean()) / grey.std(ddof=1)


def which(split, held):
    """The (published split, row) of every image, found by its values."""
    known = {normal(data).astype("f4").tobytes(): (role, i) for role in held for i, data in enumerate(held[role][0])}
    near = np.stack([np.frombuffer(key, "f4") for key in known])
    names = list(known.values())
    return [names[int(np.abs(near - image.flatten().numpy()).max(1).argmin())] for image in split.pixels]


def test_the_split_of_sermanet(root):
    held = make(root, {"train": 130, "test": 21, "extra": 160})
    parts = {part: SVHNRoss(grey="luma").load(part) for part in ("train", "validation", "test")}
    found = {part: which(split, held) for part, split in parts.items()}
    for part, split in parts.items():
        assert split.labels.tolist() == [int(held[role][1][i]) for role, i in found[part]]
    assert found["test"] == [("test", i) for i in range(21)]
    wanted = [("train", i) for i in range(40)] + [("extra", i) for i in range(20)]  # labels 0, ..., 9, 0, ...
    assert sorted(found["validation"]) == sorted(wanted)
    assert parts["validation"].labels.bincount().tolist() == [6] * 10
    order = found["train"]
    assert [role for role, _ in order] == ["extra"] * 140 + ["train"] * 90
    assert set(order) | set(wanted) == {(role, i) for role in ("train", "extra") for i in range(len(held[role][0]))}
    assert [i for _, i in order[:140]] != sorted(i for _, i in order[:140])


def test_the_pool_is_cut_from_its_end(root):
    held = make(root, {"train": 130, "test": 5, "extra": 160})
    whole = which(SVHNRoss(grey="luma").load("train"), held)
    cut = SVHNRoss(grey="luma", pool=150).load("train")
    assert which(cut, held) == whole[:150]
    assert cut.cut.startswith(
        "140 of extra, then 10 of train, without the validation images, each in an order of seed 0"
    )
    assert SVHNRoss(grey="luma", pool=100).load("train").cut.startswith("100 of extra, without")
    other = which(SVHNRoss(grey="luma", seed=1).load("train"), held)
    assert (sorted(other), other == whole) == (sorted(whole), False)


def test_values_are_normalised_images_in_the_range_of_all_parts(root):
    held = make(root, {"train": 130, "test": 9, "extra": 160})
    parts = {part: SVHNRoss(grey="luma").load(part) for part in ("train", "validation", "test")}
    every = np.stack([normal(data) for role in held for data in held[role][0]])
    (low, high), images = parts["test"].value_range, parts["test"].images()
    assert (low, high) == pytest.approx((every.min(), every.max()), abs=1e-6)
    wanted = (np.stack([normal(data) for data in held["test"][0]]) - low) / (high - low)
    assert images.dtype == torch.float32
    assert np.abs(images[:, 0].numpy() - wanted).max() < 1e-6
    together = torch.cat([split.images() for split in parts.values()])
    assert (float(together.min()), float(together.max())) == (0.0, 1.0)
    assert len({split.value_range for split in parts.values()}) == 1
    moved = images + converted_eps(0.3, (low, high)).ours
    assert np.abs((low + (high - low) * moved[:, 0].numpy()) - (wanted * (high - low) + low + 0.3)).max() < 1e-5
    assert torch.equal(parts["test"].images(torch.tensor([3, 1])), images[[3, 1]])


def test_the_paper_s_grey_is_grundland_and_dodgson_s(root):
    held = make(root, {"train": 130, "test": 9, "extra": 160})
    split = SVHNRoss().load("test")
    rgb = torch.tensor(np.stack([pixels_of(data) for data in held["test"][0]]))
    grey = 255 * decolorized(rgb.double() / 255, rng=Stream(derive(0, "grey", "test")))
    assert torch.allclose(split.pixels.double(), contrast_normalised(grey), atol=1e-5)
    assert "grundland_dodgson grey" in split.cut
    assert not torch.allclose(split.pixels, SVHNRoss(grey="luma").load("test").pixels, atol=0.01)
    alone = grey_of(rgb[4:5], "grundland_dodgson", Stream(derive(0, "grey", "test"), torch.tensor([4])))
    assert torch.allclose(alone, grey[4:5])


def test_without_normalisation_images_are_plain_grey(root):
    held = make(root, {"train": 130, "test": 9, "extra": 160})
    split = SVHNRoss(grey="luma", gcn=False).load("test")
    assert split.value_range == (0.0, 1.0)
    assert np.abs(split.images()[:, 0].numpy() - np.stack([luma(data) for data in held["test"][0]]) / 255).max() < 1e-6


def test_flat_images_stay_flat():
    flat = torch.full((2, 1, 4, 4), 7.0, dtype=torch.float64)
    flat[1, 0, 0, 0] += 1e-4  # its deviation is 2.5e-5
    made = contrast_normalised(flat)
    assert float(made[0].abs().max()) == 0
    assert float(made[1].abs().max()) < 1e-4


def test_a_test_split_alone_is_cut_between_house_numbers(root):
    images = [picture(i) for i in range(100)]
    write(
        root / "svhn" / "test-00000-of-00001.parquet", images, [i % 10 for i in range(100)],
        extra={"house_number": [i // 3 for i in range(100)]}, names=DIGITS,
    )  # fmt: skip
    parts = {part: SVHNRoss(grey="luma").load(part) for part in ("train", "validation", "test")}
    assert [len(split) for split in parts.values()] == [72, 9, 19]
    assert "images 81 to 99" in parts["test"].cut
    assert "no train split" in parts["test"].cut
    assert torch.cat([split.images() for split in parts.values()]).aminmax() == (0, 1)


def test_without_extra_validation_comes_from_train(root):
    make(root, {"train": 130, "test": 9})
    parts = {part: SVHNRoss(grey="luma").load(part) for part in ("train", "validation", "test")}
    assert [len(split) for split in parts.values()] == [117, 13, 9]
    assert "no extra split is there" in parts["train"].cut


def test_the_checksum_is_over_the_pixels_they_were_made_from(root):
    held = make(root, {"train": 130, "test": 9, "extra": 160})
    content = b"".join(pixels_of(data).tobytes() for data in held["test"][0])
    content += held["test"][1].numpy().astype("<i8").tobytes()
    assert SVHNRoss().load("test").sha256 == hashlib.sha256(content).hexdigest()


def test_first_images_of_a_part(root):
    make(root, {"train": 130, "test": 21, "extra": 160})
    whole, first = SVHNRoss(grey="luma").load("test"), SVHNRoss(grey="luma", test=4).load("test")
    assert torch.equal(first.pixels, whole.pixels[:4])
    assert first.cut.startswith("the first 4 of: the published test split")
    assert first.sha256 != whole.sha256
    assert first.value_range == whole.value_range


def test_classes_with_too_few_images_are_refused(root):
    make(root, {"train": 30, "test": 9, "extra": 160})
    with pytest.raises(DataError, match="class 0 of the train split of svhn_ross has fewer than 4 images"):
        SVHNRoss().load("validation")
