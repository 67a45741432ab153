"""notMNIST: the large and the small set, or one alone."""

import logging
import shutil

import numpy as np
import pytest
import torch

from pellucid.data import NotMNIST, survey
from pellucid.errors import DataError

from .writing import fill, picture, pixels_of, write

LETTERS = "ABCDEFGHIJ"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def letters(folder, n, seed):
    """n images of each letter as the archives have them; returns the pixels of each letter."""
    made = {}
    for number, letter in enumerate(LETTERS):
        (folder / letter).mkdir(parents=True)
        images = [picture(seed + 1000 * number + i, "L", (4, 4)) for i in range(n)]
        for i, data in enumerate(images):
            (folder / letter / f"{i:03d}.png").write_bytes(data)
        made[letter] = {pixels_of(data, "L").tobytes() for data in images}
    return made


def both(root, large=14, small=6):
    home = root / "notmnist"
    return letters(home / "notMNIST_large", large, 0), letters(home / "notMNIST_small", small, 100_000)


@pytest.mark.parametrize("where", [("notMNIST_large",), ("notMNIST_large", "notMNIST_small")])
def test_a_letter_that_is_missing_is_no_reason_to_count_the_others_anew(root, where):
    both(root)
    for folder in where:
        shutil.rmtree(root / "notmnist" / folder / "C")
    with pytest.raises(DataError, match="the large set of notmnist needs images of the classes A to J"):
        NotMNIST(train=20, validation=10, test=10).load("train")


def test_train_and_validation_are_of_the_large_set_and_test_of_the_small_one(root):
    large, small = both(root)
    data = NotMNIST(train=100, validation=20, test=30)
    parts = {part: data.load(part) for part in ("train", "validation", "test")}
    assert {part: split.labels.bincount().tolist() for part, split in parts.items()} == {
        "train": [10] * 10,
        "validation": [2] * 10,
        "test": [3] * 10,
    }
    for part, split in parts.items():
        source = small if part == "test" else large
        assert all(
            image.numpy().tobytes() in source[LETTERS[label]] for image, label in zip(split.pixels, split.labels)
        )
        assert split.shape == (1, 4, 4)
        assert split.value_range == (-0.5, 0.5)
        assert split.classes == tuple(LETTERS)
    together = torch.cat([parts["train"].pixels, parts["validation"].pixels]).flatten(1).numpy()
    assert len({image.tobytes() for image in together}) == 120
    assert "100 of the 140 images of the large set, as many of each class" in parts["train"].cut


def test_classes_come_in_a_random_order(root):
    both(root)
    labels = NotMNIST(train=100, validation=20).load("train").labels
    assert int((labels[1:] >= labels[:-1]).sum()) < 75  # sorted: 99


def test_fewer_training_images_leave_validation_as_it_is(root):
    both(root)
    whole, few = NotMNIST(train=100, validation=20), NotMNIST(train=40, validation=20)
    assert whole.load("validation").sha256 == few.load("validation").sha256
    names = [{image.numpy().tobytes() for image in data.load("train").pixels} for data in (whole, few)]
    assert names[1] < names[0]


def test_too_few_images_of_a_class_are_refused(root):
    both(root)
    with pytest.raises(DataError, match="class 0 of the small set of notmnist has 6 images, too few for 10,000"):
        NotMNIST().load("test")


def test_unreadable_files_are_counted_named_and_skipped(root, caplog):
    both(root)
    home = root / "notmnist" / "notMNIST_large"
    (home / "A" / "003.png").write_bytes(b"")
    broken = (home / "F" / "005.png").read_bytes()
    (home / "F" / "005.png").write_bytes(broken[:-30])
    data = NotMNIST(train=100, validation=20, test=30)
    with caplog.at_level(logging.WARNING, "pellucid.data"):
        train, validation = data.load("train"), data.load("validation")
    assert [name.split(" (")[0].removeprefix(f"{home}/") for name in train.skipped] == ["A/003.png", "F/005.png"]
    assert train.skipped == validation.skipped
    assert "2 images left out" in train.cut
    assert len(caplog.records) == 1  # once, though both parts are cut from it
    assert "A/003.png (not readable)" in caplog.text
    assert train.labels.bincount().tolist() == [10] * 10
    assert data.load("test").skipped == ()
    for image, label, name in zip(train.pixels, train.labels, train.names):
        assert name.startswith(LETTERS[label])
        assert image.numpy().tobytes() == pixels_of((home / name).read_bytes(), "L").tobytes()
    with pytest.raises(DataError, match=r"(A/003|F/005)\.png is (not a readable image|truncated or corrupt)"):
        NotMNIST(train=130, validation=10, unreadable="refuse").load("train")


def test_parquet_files_called_large_and_small_do_as_well(root):
    for name, n, seed in (("large", 120, 0), ("small", 40, 1)):
        fill(root / "notmnist", name, n, classes=10, mode="L", seed=seed, names=list(LETTERS))
    data = NotMNIST(train=100, validation=20, test=40)
    assert [len(data.load(part)) for part in ("train", "validation", "test")] == [100, 20, 40]


def test_one_set_alone_is_cut_in_three(root):
    fill(root / "notmnist", "train", 200, classes=10, mode="L", names=list(LETTERS))
    parts = [NotMNIST().load(part) for part in ("train", "validation", "test")]
    assert [len(split) for split in parts] == [140, 20, 40]


@pytest.mark.parametrize("name", ["notMNIST_small", "notMNIST_large"])
def test_one_folder_alone_is_cut_in_three(root, name):
    letters(root / "notmnist" / name, 10, 0)
    parts = [NotMNIST().load(part) for part in ("train", "validation", "test")]
    assert [split.labels.bincount().tolist() for split in parts] == [[7] * 10, [1] * 10, [2] * 10]


def test_rows_and_labels_of_a_parquet_file_stay_together(root):
    images = [picture(i, "L", (4, 4)) for i in range(200)]
    broken = {7, 50, 199}
    held = [b"nothing" if i in broken else data for i, data in enumerate(images)]
    held[50] = None
    write(root / "notmnist" / "train-00000-of-00001.parquet", held, [i % 10 for i in range(200)], names=list(LETTERS))
    parts = [NotMNIST().load(part) for part in ("train", "validation", "test")]
    known = {pixels_of(data, "L").tobytes(): i % 10 for i, data in enumerate(images) if i not in broken}
    found = [
        (image.numpy().tobytes(), int(label)) for split in parts for image, label in zip(split.pixels, split.labels)
    ]
    assert dict(found) == known
    assert len(found) == 197
    assert [name.split(" of ")[0] for name in parts[0].skipped] == ["image 7", "image 50", "image 199"]


def test_the_words_for_what_is_left_out():
    assert (
        survey.words([f"{i}.png" for i in range(1203)]) == "1,203 images left out: 0.png, 1.png, 2.png and 1,200 more"
    )
    assert survey.words(["a"]) == "1 image left out: a"


def test_the_papers_range(root):
    both(root)
    split = NotMNIST(test=30).load("test")
    low, high = split.value_range
    theirs = (split.pixels.double() - 127.5) / 255
    assert np.abs((low + (high - low) * split.images() - theirs).numpy()).max() < 1e-6
