"""Image folders with one folder per class."""

import pytest
import torch

from pellucid.data import Folder
from pellucid.errors import DataError, SpecError

from .writing import picture, pixels_of


def tree(folder, classes, n, seed=0, suffix="png", form="PNG"):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            (folder / name / f"{i:02d}.{suffix}").write_bytes(picture(seed + 100 * number + i, form=form))
    return folder


def test_one_tree_is_cut_per_class(tmp_path):
    tree(tmp_path, ["dog", "cat"], 20)
    parts = {part: Folder(path=str(tmp_path)).load(part) for part in ("train", "validation", "test")}
    assert {part: split.labels.bincount().tolist() for part, split in parts.items()} == {
        "train": [14, 14],
        "validation": [2, 2],
        "test": [4, 4],
    }
    assert parts["train"].classes == ("cat", "dog")
    assert "drawn per class" in parts["train"].cut
    images = torch.cat([split.pixels for split in parts.values()]).flatten(1)
    assert len({bytes(image) for image in images.numpy()}) == 40


def test_labels_are_the_folders_of_the_images(tmp_path):
    for part in ("train", "test"):
        tree(tmp_path / part, ["b", "a"], 2)
    split = Folder(path=str(tmp_path)).load("test")
    wanted = [pixels_of((tmp_path / "test" / name).read_bytes()) for name in ("a/00.png", "a/01.png", "b/00.png")]
    assert all((split.pixels[i].numpy() == wanted[i]).all() for i in range(3))
    assert split.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_split_folders_are_recognised(tmp_path, name):
    for seed, part in enumerate(("train", name, "test")):
        tree(tmp_path / part, ["a", "b"], 3 + seed, seed=1000 * seed)
    sizes = {part: len(Folder(path=str(tmp_path)).load(part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 6, "validation": 8, "test": 10}


def test_train_and_val_alone_are_train_and_test(tmp_path):
    tree(tmp_path / "train", ["a", "b"], 10)
    tree(tmp_path / "val", ["a", "b"], 3, seed=1000)
    sizes = {part: len(Folder(path=str(tmp_path)).load(part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 18, "validation": 2, "test": 6}


def test_a_class_missing_from_a_split_keeps_the_numbers(tmp_path):
    tree(tmp_path / "train", ["a", "b", "c"], 2)
    tree(tmp_path / "test", ["c"], 2, seed=1000)
    split = Folder(path=str(tmp_path)).load("test")
    assert (split.classes, split.labels.tolist()) == (("a", "b", "c"), [2, 2])


def test_other_files_are_ignored(tmp_path):
    tree(tmp_path, ["a", "b"], 10)
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "a" / "notes.txt").write_text("words")
    (tmp_path / "a" / ".00.png").write_text("hidden")
    tree(tmp_path, [".cache"], 10)
    parts = [Folder(path=str(tmp_path)).load(part) for part in ("train", "validation", "test")]
    assert sum(len(split) for split in parts) == 20
    assert parts[0].classes == ("a", "b")


def test_jpegs_in_capitals_are_read(tmp_path):
    tree(tmp_path, ["a"], 10, suffix="JPEG", form="JPEG")
    assert len(Folder(path=str(tmp_path)).load("train")) == 7


def test_an_unreadable_image_is_named(tmp_path):
    tree(tmp_path / "train", ["a"], 10)
    tree(tmp_path / "test", ["a"], 3)
    (tmp_path / "test" / "a" / "01.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"a/01\.png is not a readable image"):
        Folder(path=str(tmp_path)).load("test")


def test_a_tree_without_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="one folder per class"):
        Folder(path=str(tmp_path)).load("train")


def test_without_labels_every_image_of_a_tree_has_label_0(tmp_path):
    tree(tmp_path, ["cat", "dog"], 10)
    split = Folder(path=str(tmp_path), labelled=False).load("train")
    assert (split.classes, split.labels.tolist()) == (("unlabelled",), [0] * 14)


@pytest.mark.parametrize("n", [1, 2])
def test_a_part_without_images_is_refused(tmp_path, n):
    tree(tmp_path, ["a"], n)
    with pytest.raises(DataError, match=f"the test part of .* would be empty: {n} images are too few"):
        Folder(path=str(tmp_path)).load("test")


def test_an_absurd_size_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"size: .*less than or equal to 10000"):
        Folder(path=str(tmp_path), size="99999999,99999999")
