"""Downloading, with a stand-in for the hub's client."""

import fnmatch
import sys
import types

import pytest

from pellucid.data import CIFAR10, SVHN, Caltech256, SVHNRoss, TinyImageNet, hub, svhn
from pellucid.errors import DataError

from .writing import fill


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A hub that holds what the test puts into `snapshots`, and remembers what it was asked."""
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    hub.download.cache_clear()
    module = types.ModuleType("huggingface_hub")
    module.asked = []
    module.folder = tmp_path / "snapshots" / "0123abcd"
    module.folder.mkdir(parents=True)

    def snapshot_download(repo_id, *, repo_type, revision, allow_patterns):
        module.asked.append((repo_id, repo_type, revision, tuple(allow_patterns)))
        names = [str(path.relative_to(module.folder)) for path in module.folder.rglob("*.parquet")]
        for name in names:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (module.folder / name).unlink()  # was not asked for, so would not be there
        return str(module.folder)

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    yield module
    hub.download.cache_clear()


def test_only_the_split_that_is_needed_is_fetched(client):
    fill(client.folder / "cropped_digits", "train", 40)
    fill(client.folder / "cropped_digits", "test", 6, seed=1)
    split = SVHN().load("test")
    assert client.asked == [("ufldl-stanford/svhn", "dataset", None, ("cropped_digits/test-*.parquet",))]
    assert len(split) == 6
    assert split.cut == "the published test split"  # though no train split lies here, there is one
    assert split.source == "ufldl-stanford/svhn@0123abcd: test-00000-of-00001.parquet"


def test_validation_is_cut_from_the_fetched_train_split(client):
    fill(client.folder / "cropped_digits", "train", 40)
    assert [len(SVHN().load(part)) for part in ("train", "validation")] == [36, 4]
    assert len(client.asked) == 1


def test_a_published_validation_split_is_fetched_itself(client):
    fill(client.folder / "data", "validation", 3)
    split = Caltech256().load("validation")
    assert split.cut == "the published validation split"
    assert split.shape == (3, 256, 256)


def test_other_split_names_and_revisions_are_passed_on(client):
    fill(client.folder / "data", "valid", 3)
    assert len(TinyImageNet(revision="abc").load("test")) == 3
    assert client.asked[0][2] == "abc"
    assert "data/valid-*.parquet" in client.asked[0][3]


def test_a_failed_download_says_what_to_do(client):
    def fail(*_, **__):
        raise ConnectionError("no route\nto host")

    client.snapshot_download = fail
    with pytest.raises(DataError) as caught:
        CIFAR10().load("train")
    assert str(caught.value) == (
        "cifar10 is not here and could not be downloaded (ConnectionError): connect to the hub, or set "
        "PELLUCID_DATA or --data-root to a folder that holds cifar10/train-*.parquet "
        "and cifar10/test-*.parquet"
    )


def test_an_empty_snapshot_says_what_to_do(client):
    with pytest.raises(DataError, match=r"no parquet files of its test split .* PELLUCID_DATA"):
        CIFAR10().load("test")


def test_a_local_folder_comes_first(client, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    for part in ("train", "test"):
        fill(tmp_path / "cifar10", part, 4)
    assert len(CIFAR10().load("test")) == 4
    assert client.asked == []


def test_a_root_without_the_set_leads_to_the_hub(client, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    fill(client.folder / "plain_text", "test", 4)
    assert len(CIFAR10().load("test")) == 4
    assert len(client.asked) == 1


def test_svhn_ross_fetches_all_three_splits_for_any_part(client, monkeypatch):
    monkeypatch.setattr(svhn, "HELD", {"train": 1, "extra": 1})
    for seed, split in enumerate(("train", "extra", "test")):
        fill(client.folder / "cropped_digits", split, 30, classes=10, seed=seed)
    parts = [SVHNRoss(grey="luma").load(part) for part in ("test", "validation", "train")]
    assert [len(split) for split in parts] == [30, 20, 40]
    patterns = tuple(f"cropped_digits/{split}-*.parquet" for split in ("train", "extra", "test"))
    assert client.asked == [("ufldl-stanford/svhn", "dataset", None, patterns)]


def test_a_split_that_the_hub_lacks_is_named(client):
    for split in ("train", "test"):
        fill(client.folder / "cropped_digits", split, 30, classes=10)
    with pytest.raises(DataError, match="ufldl-stanford/svhn has no parquet files of its extra split on the hub"):
        SVHNRoss().load("test")
