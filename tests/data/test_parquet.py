"""Parquet folders: every layout that is read, every defect that is refused."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pellucid.data import (
    CIFAR10,
    MNIST,
    SVHN,
    Encoded,
    Folder,
    TinyImageNet,
    assemble,
    data_root,
    set_data_root,
)
from pellucid.data.catalogue import RestrictedImageNet
from pellucid.errors import DataError, SpecError

from .writing import fill, picture, pixels_of, write


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def same(split, images, rows, mode="RGB"):
    wanted = np.stack([pixels_of(images[row], mode) for row in rows])
    return np.array_equal(split.pixels[:].numpy(), wanted)


def test_published_splits_are_read_as_they_are(tmp_path):
    for seed, part in enumerate(("train", "validation", "test")):
        images = fill(tmp_path, part, 6, names=["cat", "dog"], seed=seed)
        split = Folder(path=str(tmp_path)).load(part) if part == "train" else None
        if part == "train":  # alone so far: cut in three
            assert len(split) < 6
    split = Folder(path=str(tmp_path)).load("test")
    assert same(split, images, range(6))
    assert split.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert split.classes == ("cat", "dog")
    assert split.cut == "the published test split"
    assert split.labels.dtype == torch.int64
    assert split.shape == (3, 6, 5)


def test_the_checksum_is_over_pixels_and_labels(tmp_path):
    images = fill(tmp_path, "train", 4)
    fill(tmp_path, "test", 4)
    split = Folder(path=str(tmp_path)).load("test")
    content = b"".join(pixels_of(image).tobytes() for image in images)
    content += np.array([0, 1, 0, 1], dtype="<i8").tobytes()
    assert split.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("plain", [True, False])
def test_odd_column_names_without_metadata(tmp_path, plain):
    images = [picture(i) for i in range(4)]
    for part in ("train", "test"):
        extra = {"file": ["a"] * 4, "note": [0.5] * 4}
        write(
            tmp_path / f"{part}.parquet",
            images,
            [2, 0, 1, 0],
            columns=("img", "fine"),
            extra=extra,
            plain=plain,
        )
    split = Folder(path=str(tmp_path)).load("test")
    assert same(split, images, range(4))
    assert split.labels.tolist() == [2, 0, 1, 0]
    assert split.classes == ("0", "1", "2")


def test_the_metadata_decides_which_columns_count(tmp_path):
    images = [picture(i) for i in range(4)]
    extra = {"aside": [picture(9)] * 4, "number": [7, 7, 7, 7]}  # both come first in the file
    for part in ("train", "test"):
        write(
            tmp_path / f"{part}.parquet",
            images,
            [1, 0, 1, 0],
            names=["a", "b"],
            columns=("x", "y"),
            extra=extra,
        )
    split = Folder(path=str(tmp_path)).load("test")
    assert same(split, images, range(4))
    assert split.labels.tolist() == [1, 0, 1, 0]


def test_broken_metadata_is_passed_over(tmp_path):
    path = tmp_path / "test.parquet"
    write(path, [picture(0)] * 10, [0, 1] * 5)
    table = pq.read_table(path).replace_schema_metadata({"huggingface": json.dumps({"info": [1]})})
    pq.write_table(table, path)
    assert len(Folder(path=str(tmp_path)).load("train")) == 7


def test_classes_without_names_are_numbered_over_all_splits(tmp_path):
    fill(tmp_path, "train", 6, classes=2)
    fill(tmp_path, "test", 3, classes=3)
    assert Folder(path=str(tmp_path)).load("test").classes == ("0", "1", "2")
    assert Folder(path=str(tmp_path)).load("train").classes == ("0", "1", "2")


def test_several_files_are_read_in_order(tmp_path):
    images = [picture(i) for i in range(6)]
    for i in range(3):
        write(tmp_path / f"test-0000{i}-of-00003.parquet", images[2 * i : 2 * i + 2], [i, i])
    fill(tmp_path, "train", 4, classes=3)
    split = Folder(path=str(tmp_path)).load("test")
    assert same(split, images, range(6))
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_missing_numbered_file_is_named(tmp_path):
    write(tmp_path / "test-00000-of-00002.parquet", [picture(0)], [0])
    with pytest.raises(DataError, match="lacks the part 00001-of-00002"):
        Folder(path=str(tmp_path)).load("test")


@pytest.mark.parametrize("home", ["mnist", "mnist/data", "mnist/mnist"])
def test_a_named_set_is_found_in_its_folder(root, home):
    train = fill(root / home, "train", 12, mode="L", names=list("ab"))
    fill(root / home, "test", 3, mode="L", seed=1, names=list("ab"))
    with pytest.raises(DataError, match="too few"):
        MNIST().load("train")
    test = MNIST().load("test")
    assert test.shape == (1, 6, 5)
    assert test.source.startswith("local folder mnist")
    assert str(root) not in test.source
    assert train


def test_a_dash_in_the_folder_name_is_accepted(root):
    for part in ("train", "valid"):
        fill(root / "tiny-imagenet", part, 20)
    assert len(TinyImageNet().load("test")) == 20


def test_the_first_5000_of_train_are_validation(root):
    images = [picture(i, size=(1, 1)) for i in range(10)]
    labels = [i % 10 for i in range(5003)]
    write(
        root / "cifar10/train-00000-of-00001.parquet",
        [images[i % 10] for i in range(5003)],
        labels,
        row_group=999,
    )
    fill(root / "cifar10", "test", 3)
    train, validation = CIFAR10().load("train"), CIFAR10().load("validation")
    assert train.labels.tolist() == [0, 1, 2]
    assert validation.labels.tolist() == labels[:5000]
    assert same(train, images, range(3))
    assert train.classes[3] == "cat"  # known by name where the files have none


@pytest.mark.parametrize("name", ["valid", "test"])
def test_tiny_imagenet_is_judged_on_its_validation_split(root, name):
    fill(root / "tiny_imagenet", "train", 40)
    fill(root / "tiny_imagenet", name, 6, seed=1)
    sizes = {part: len(TinyImageNet().load(part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 36, "validation": 4, "test": 6}


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    images = [picture(0), picture(1, "L"), picture(2), picture(3)]
    write(tmp_path / "test.parquet", images, [0, 1, 0, 1])
    write(tmp_path / "train.parquet", [picture(1, "L")] * 4, [0, 1, 0, 1])
    for part in ("train", "test"):
        assert Folder(path=str(tmp_path)).load(part).shape == (3, 6, 5)
    assert same(Folder(path=str(tmp_path)).load("test"), images, range(4))


def test_a_set_of_grey_images_has_one_channel(tmp_path):
    images = fill(tmp_path, "test", 4, mode="L")
    fill(tmp_path, "train", 4, mode="L")
    split = Folder(path=str(tmp_path)).load("test")
    assert split.shape == (1, 6, 5)
    assert same(split, images, range(4), "L")


def test_a_test_split_alone_is_cut_between_house_numbers(root):
    houses = [i // 3 for i in range(100)]
    fill(root / "svhn", "test", 100, extra={"house_number": houses})
    parts = {part: SVHN().load(part) for part in ("train", "validation", "test")}
    assert [len(split) for split in parts.values()] == [72, 9, 19]
    assert "images 81 to 99" in parts["test"].cut
    assert "no train split" in parts["test"].cut
    assert len(Folder(path=str(root / "svhn"), group="house_number").load("test")) == 19
    assert len(Folder(path=str(root / "svhn")).load("test")) == 20


def test_sizes_must_agree_or_be_given(tmp_path):
    write(tmp_path / "test.parquet", [picture(0), picture(1, size=(9, 9))], [0, 1])
    fill(tmp_path, "train", 2)
    with pytest.raises(DataError, match=r"image 1 of the test split .* is 9x9, others are 6x5"):
        Folder(path=str(tmp_path)).load("test")
    assert Folder(path=str(tmp_path), size=(4, 8)).load("test").shape == (3, 4, 8)
    assert Folder(path=str(tmp_path), size="4,8", fit="crop").load("test").shape == (3, 4, 8)


def test_superclasses_keep_their_images_only(root):
    labels = [151, 0, 268, 30, 269, 319, 999, 281]
    images = [picture(i) for i in range(8)]
    home = root / "restricted_imagenet"
    write(home / "validation-00000-of-00001.parquet", images, labels, row_group=3)
    write(home / "train-00000-of-00001.parquet", images, labels, row_group=3)
    split = RestrictedImageNet().load("test")
    names = [split.classes[label] for label in split.labels]
    assert names == ["dog", "dog", "frog", "insect", "cat"]
    assert split.shape == (3, 224, 224)
    resized = pixels_of(images[3])  # the third that is kept
    assert abs(float(split.pixels[2].float().mean()) - resized.mean()) < 12


def test_a_large_set_stays_encoded(tmp_path, monkeypatch):
    images = fill(tmp_path, "test", 50)  # alone: rows 40 to 49 are the test part
    eager = Folder(path=str(tmp_path)).load("test")
    monkeypatch.setattr(assemble, "LIMIT", 100)
    assemble.assemble.cache_clear()
    lazy = Folder(path=str(tmp_path)).load("test")
    assert isinstance(lazy.pixels, Encoded)
    assert (lazy.shape, len(lazy), lazy.pixels.shape) == (eager.shape, 10, eager.pixels.shape)
    for rows in (
        slice(None),
        slice(2, 5),
        torch.tensor([7, 1, 1]),
        torch.arange(10) % 2 == 0,
        torch.tensor([3]),
        4,
    ):
        assert torch.equal(lazy.pixels[rows], eager.pixels[rows])
    assert torch.equal(lazy.images(torch.tensor([4])), eager.images(torch.tensor([4])))
    assert torch.equal(lazy.images(), eager.images())
    small, large = (Folder(path=str(tmp_path), size=(side, side)).load("test") for side in (6, 9))
    assert len({lazy.sha256, small.sha256, large.sha256}) == 3  # other pixels, though the files are the same
    assert torch.equal(lazy.to("cpu").images(slice(3)), eager.images(slice(3)))
    labels = np.array([0, 1] * 5, dtype="<i8").tobytes()
    assert lazy.sha256 == hashlib.sha256(b"3 (6, 5) stretch False" + b"".join(images[40:]) + labels).hexdigest()


def test_images_without_labels_are_read_on_request(tmp_path):
    write(tmp_path / "train.parquet", [picture(i) for i in range(10)], None)
    with pytest.raises(DataError, match="no column of class labels; its columns are image"):
        Folder(path=str(tmp_path)).load("train")
    split = Folder(path=str(tmp_path), labelled=False).load("train")
    assert (split.classes, split.labels.tolist()) == (("unlabelled",), [0] * 7)


def test_the_first_images_of_a_sorted_set_are_drawn_from_all_classes(tmp_path):
    images = [picture(i) for i in range(40)]
    write(tmp_path / "train.parquet", images, [i // 10 for i in range(40)])
    fill(tmp_path, "test", 8, classes=4)
    cut = Folder(path=str(tmp_path), train=12).load("train")
    assert len(cut) == 12
    assert len(cut.labels.unique()) > 1
    assert "sorted by class" in cut.cut
    plain = Folder(path=str(tmp_path), test=3).load("test")
    assert plain.labels.tolist() == [0, 1, 2]
    assert plain.cut == "the first 3 of: the published test split"


def test_a_changed_file_is_read_again(tmp_path):
    fill(tmp_path, "train", 4)
    fill(tmp_path, "test", 4)
    before = Folder(path=str(tmp_path)).load("test")
    assert Folder(path=str(tmp_path)).load("test") is before
    fill(tmp_path, "test", 5, seed=1)
    assert len(Folder(path=str(tmp_path)).load("test")) == 5


# ------------------------------------------------------------------------------------------------- refusals


def refused(folder, match, part="test", **more):
    with pytest.raises(DataError, match=match) as caught:
        Folder(path=str(folder), **more).load(part)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    fill(tmp_path, "train", 4)
    path = tmp_path / "test-00000-of-00001.parquet"
    fill(tmp_path, "test", 4)
    path.write_bytes(path.read_bytes()[:-30])
    refused(tmp_path, "test-00000-of-00001.parquet is not a readable parquet file")


def test_a_corrupt_file_is_refused(tmp_path):
    fill(tmp_path, "train", 4)
    path = tmp_path / "test-00000-of-00001.parquet"
    images = [picture(i, size=(40, 40)) for i in range(4)]
    write(path, images, [0, 1, 0, 1])
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)  # the head of the first page; the footer stays
    path.write_bytes(content)
    refused(tmp_path, "not a readable parquet file|not a readable image|truncated or corrupt")


def test_missing_columns_are_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "test.parquet")
    refused(tmp_path, "no column of encoded images; its columns are text, label")


def test_labels_outside_the_classes_are_refused(tmp_path):
    write(tmp_path / "test.parquet", [picture(0)] * 10, [0, 1] * 4 + [5, 0], names=["a", "b"])
    refused(tmp_path, "label 5, outside its 2 classes")
    write(tmp_path / "test.parquet", [picture(0)] * 10, [0, 1] * 4 + [-1, 0], names=["a", "b"])
    refused(tmp_path, "label -1, outside its 2 classes")


@pytest.mark.parametrize("label", [100_000, 2**31, 10**12])
def test_numbers_that_are_no_class_labels_are_refused(tmp_path, label):
    write(tmp_path / "test.parquet", [picture(0), picture(1)], [0, label])
    refused(tmp_path, f"has the label {label:,}; class labels are numbers below 100,000")


def test_missing_labels_and_bytes_are_refused(tmp_path):
    write(tmp_path / "test.parquet", [picture(0)] * 2, [0, None])
    refused(tmp_path, "images without a value in the column label")
    write(tmp_path / "test.parquet", [picture(0), None], [0, 1])
    refused(tmp_path, "images without bytes")


def test_unreadable_images_are_numbered(tmp_path):
    fill(tmp_path, "train", 4)
    write(tmp_path / "test.parquet", [picture(0), b"nothing"], [0, 1])
    refused(tmp_path, "image 1 of the test split of .* is not a readable image", size=(6, 5))


def test_empty_splits_and_folders_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, "neither parquet files")
    write(tmp_path / "test.parquet", [], [])
    refused(tmp_path, "is empty")


def test_unknown_parts_and_too_many_images_are_refused(tmp_path):
    fill(tmp_path, "train", 10)
    fill(tmp_path, "test", 4)
    refused(tmp_path, "not 'valid'", part="valid")
    refused(tmp_path, "has 4 images, 5 were asked for", test=5)
    with pytest.raises(SpecError):
        Folder()
    with pytest.raises(SpecError):
        Folder(path=str(tmp_path), size=(4,))


def test_the_data_root_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    assert data_root() == tmp_path
    with pytest.raises(DataError, match="does not exist"):
        set_data_root(tmp_path / "nowhere")
    (tmp_path / "inner").mkdir()
    set_data_root(tmp_path / "inner")
    assert data_root() == tmp_path / "inner"
    set_data_root(None)
    assert data_root() is None
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="correct PELLUCID_DATA or --data-root"):
        MNIST().load("test")
