"""Options of the named sets: sizes, crops, fifths, ImageNet's folders, skipped images."""

import numpy as np
import pytest
import torch

from pellucid.data import CIFAR100, Caltech256, Encoded, Folder, RandomCrop, RestrictedImageNet, TinyImageNet, assemble
from pellucid.data.image import Form, decode
from pellucid.errors import DataError, SpecError
from pellucid.rng import Stream
from pellucid.spec import digest

from .writing import fill, picture, pixels_of, write


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.parametrize("coarse_first", [False, True])
def test_cifar100_has_its_fine_labels(root, coarse_first):
    names = [f"fine {i}" for i in range(100)]
    images = [picture(i) for i in range(6)]
    fine, coarse = [3, 99, 0, 1, 2, 50], [0, 19, 1, 1, 1, 2]
    for part in ("train", "test"):
        path = root / "cifar100" / "cifar100" / f"{part}-00000-of-00001.parquet"
        columns = ("img", "coarse_label" if coarse_first else "fine_label")
        first, second = (coarse, fine) if coarse_first else (fine, coarse)
        other = {"fine_label" if coarse_first else "coarse_label": second}
        named = None if coarse_first else names  # without names: the column of that name all the same
        write(path, images, first, names=named, columns=columns, extra=other)
    split = CIFAR100().load("test")
    assert split.labels.tolist() == fine
    assert len(split.classes) == 100
    assert coarse_first or split.classes[99] == "fine 99"


def test_tiny_imagenet_is_resized(root):
    for part in ("train", "valid"):
        images = fill(root / "tiny_imagenet", part, 40)
    split = TinyImageNet(size=12).load("test")
    wanted = decode(images[5], Form(3, (12, 12), resize=True), "it")
    assert split.shape == (3, 12, 12)
    assert np.array_equal(split.pixels[5].numpy(), wanted)
    assert TinyImageNet().load("test").shape == (3, 6, 5)
    assert digest(TinyImageNet(size=224)) != digest(TinyImageNet())


def caltech(home, counts):
    for number, n in enumerate(counts):
        folder = home / f"{number + 1:03d}.thing"
        folder.mkdir(parents=True)
        for i in range(n):
            (folder / f"{number + 1:03d}_{i:04d}.jpg").write_bytes(picture(100 * number + i, form="JPEG"))
        (folder / "RENAME2").write_text("as in the archive")


def test_a_fifth_of_each_class_of_caltechs_archive_is_the_test_part(root):
    caltech(root / "caltech256" / "256_ObjectCategories", [11, 23, 10])
    parts = {part: Caltech256().load(part) for part in ("train", "validation", "test")}
    assert {part: split.labels.bincount().tolist() for part, split in parts.items()} == {
        "test": [2, 4, 2],
        "validation": [1, 2, 1],
        "train": [8, 17, 7],
    }
    names = [name for split in parts.values() for name in split.names]
    assert len(set(names)) == 44
    assert parts["test"].classes == ("001.thing", "002.thing", "003.thing")
    assert "a fifth of each class, rounded down, drawn with seed" in parts["test"].cut
    assert set(Caltech256(seed=1).load("test").names) != set(parts["test"].names)
    assert Caltech256().load("test").names == parts["test"].names


def test_the_hubs_splits_of_caltech_stay_what_they_are(root):
    for number, part in enumerate(("train", "validation", "test")):
        fill(root / "caltech256", part, 4 + number, seed=number)
    assert [len(Caltech256().load(part)) for part in ("train", "validation", "test")] == [4, 5, 6]


def test_a_crop_shows_the_centre_and_keeps_the_frame(root):
    for part in ("train", "validation", "test"):
        fill(root / "caltech256", part, 3)
    whole, split = Caltech256().load("train"), Caltech256(crop=224).load("train")
    assert (whole.shape, split.shape) == ((3, 256, 256), (3, 224, 224))
    assert torch.equal(split.images(), whole.images()[..., 16:240, 16:240])
    assert torch.equal(split.images(framed=True), whole.images())
    crops = RandomCrop(size=224)(split.images(framed=True), rng=Stream(1))
    assert crops.shape[1:] == split.shape
    assert torch.equal(split.images(slice(1, 3)), split.images()[1:3])
    for crop in (225, 258):
        with pytest.raises(SpecError, match="even number up to 256"):
            Caltech256(crop=crop)


def imagenet(home, splits, folders=1000):
    """A tree of class folders, in each one image whose colour tells its class."""
    names = sorted(f"n{(7919 * i) % 100_000_000:08d}" for i in range(1, folders + 1))
    for split in splits:
        for number, name in enumerate(names):
            (home / split / name).mkdir(parents=True)
            if number % 5 == 0:  # the rest is empty: faster
                (home / split / name / f"{name}_1.JPEG").write_bytes(picture(number, size=(3, 3)))
    return names


@pytest.mark.parametrize("home", ["imagenet", "restricted_imagenet"])
def test_restricted_imagenet_is_read_from_imagenets_folders(root, home):
    names = imagenet(root / home, ["train", "val"])
    ranges = [(30, 32), (33, 37), (80, 100), (118, 121), (151, 268), (281, 285), (300, 319), (365, 382), (389, 397)]
    kinds = ["frog", "turtle", "bird", "crab", "dog", "cat", "insect", "monkey", "fish"]
    wanted = [(names[i], kind) for kind, (low, high) in zip(kinds, ranges) for i in range(low, high + 1) if i % 5 == 0]
    split = RestrictedImageNet().load("test")
    found = [(name.split("/")[0], split.classes[label]) for name, label in zip(split.names, split.labels)]
    assert found == wanted
    assert split.shape == (3, 224, 224)
    assert split.cut == "the published test split"
    i = wanted.index((names[285], "cat"))
    assert np.array_equal(split.pixels[i].numpy(), decode(picture(285, size=(3, 3)), Form(3, (224, 224), True), "it"))
    train, validation = RestrictedImageNet().load("train"), RestrictedImageNet().load("validation")
    assert len(train) + len(validation) == len(wanted)


@pytest.mark.parametrize("folders", [999, 20])
def test_other_numbers_of_folders_cannot_be_numbered(root, folders):
    imagenet(root / "imagenet", ["val"], folders)
    with pytest.raises(DataError, match=f"order of ImageNet's 1,000 class folders.* found {folders} in val"):
        RestrictedImageNet().load("test")


def test_splits_of_other_folders_are_refused(root):
    imagenet(root / "imagenet", ["train", "val"])
    (root / "imagenet" / "val" / "zebra").mkdir()
    with pytest.raises(DataError, match="found 1,000 in train, 1,001 in val"):
        RestrictedImageNet().load("test")


def test_a_split_that_is_not_there_is_named(root):
    imagenet(root / "imagenet", ["val"])
    assert len(RestrictedImageNet().load("test")) > 30
    with pytest.raises(DataError, match="there is no train split in local folder imagenet"):
        RestrictedImageNet().load("train")


def test_a_large_tree_is_read_from_its_files_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "LIMIT", 100)
    caltech(tmp_path / "test", [3])
    caltech(tmp_path / "train", [3])
    split = Folder(path=str(tmp_path)).load("test")
    assert isinstance(split.pixels, Encoded)
    name = tmp_path / "test" / split.names[1]
    assert np.array_equal(split.pixels[1].numpy(), pixels_of(name.read_bytes()))
    name.unlink()
    with pytest.raises(DataError, match=r"001_0001\.jpg cannot be read \(FileNotFoundError\)"):
        split.images()


@pytest.mark.parametrize("first", [True, False])
def test_a_folder_skips_what_cannot_be_read_when_told_to(tmp_path, first):
    caltech(tmp_path / "train", [6])
    caltech(tmp_path / "test", [4, 4])
    broken = tmp_path / "test" / "001.thing" / ("001_0000.jpg" if first else "001_0002.jpg")
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"is truncated or corrupt|is not a readable image"):
        Folder(path=str(tmp_path)).load("test")
    split = Folder(path=str(tmp_path), unreadable="skip").load("test")
    assert (len(split), len(split.skipped)) == (7, 1)
    assert split.labels.tolist() == [0] * 3 + [1] * 4
    assert broken.name in split.cut
    assert broken.name not in "".join(split.names)
    assert digest(Folder(path="x", unreadable="skip")) == digest(Folder(path="x"))


def test_nothing_is_left_of_unreadable_images(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / f"{part}.parquet", [b"no image"] * 3, [0, 1, 0])
    with pytest.raises(DataError, match="is empty but for 3 images left out: image 0 of"):
        Folder(path=str(tmp_path), unreadable="skip").load("test")
