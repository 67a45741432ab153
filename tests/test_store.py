import dataclasses
import errno
import json
import os
import stat
import subprocess
import threading
from dataclasses import dataclass

import pytest
import torch

from pellucid import store as store_module
from pellucid.attacks import FGSM
from pellucid.data import Digits
from pellucid.errors import DataError, StoreError
from pellucid.spec import digest
from pellucid.store import META, Store, explained, read_tensors, write_atomic, write_json, write_tensors

TASK = FGSM(eps=0.25)  # the store does not mind what kind of description it is


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def fill(store, task=TASK, text="result"):
    scratch = store.scratch(task)
    scratch.mkdir(parents=True)
    (scratch / "part").write_text("a part that is no result")
    (scratch / "out.txt").write_text(text)
    return store.commit(task, {"seed": 3, "wall_seconds": 0, "passes": {}, "data": {}}, ["out.txt"])


# ------------------------------------------------------------------------------------------ results by digest


def test_a_result_is_found_by_what_made_it(store):
    assert not store.has(TASK)
    fill(store)
    assert store.has(FGSM(eps=1 / 4))  # the same description, written otherwise
    assert not store.has(FGSM(eps=0.26))
    result = store.open(TASK)
    assert result.folder == store.root / "fgsm" / digest(TASK)
    assert (result.folder / "out.txt").read_text() == "result"
    assert result.meta["seed"] == 3
    assert result.meta["task"]["eps"] == 0.25
    assert result.meta["digest"] == digest(TASK)
    assert sorted(path.name for path in result.folder.iterdir()) == [META, "out.txt"]
    assert not store.scratch(TASK).exists()


def test_committing_twice_keeps_the_first_result(store):
    fill(store)
    assert (fill(store, text="another").folder / "out.txt").read_text() == "result"


def test_results_are_moved_not_copied_or_linked(store):
    scratch = store.scratch(TASK)
    scratch.mkdir(parents=True)
    (scratch / "out.txt").write_text("result")
    number = (scratch / "out.txt").stat().st_ino
    made = (store.commit(TASK, {"wall_seconds": 0, "passes": {}, "data": {}}, ["out.txt"]).folder / "out.txt").stat()
    assert (made.st_ino, made.st_nlink) == (number, 1)


def test_a_half_made_folder_is_no_result_and_does_not_block(store):
    folder = store.folder(TASK)
    folder.mkdir(parents=True)
    (folder / "out.txt").write_text("half")
    assert not store.has(TASK)
    assert (fill(store).folder / "out.txt").read_text() == "result"


def test_a_missing_result_is_named(store):
    with pytest.raises(StoreError, match=f"fgsm {digest(TASK)[:12]} is not in the store"):
        store.open(TASK)


@pytest.mark.parametrize("harm", ["changed", "removed"])
def test_a_changed_file_is_refused_by_name(store, harm):
    path = fill(store).folder / "out.txt"
    path.unlink() if harm == "removed" else path.write_text("resulT")
    with pytest.raises(StoreError, match=r"out\.txt is missing or was changed; delete the folder"):
        store.open(TASK)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\0", b"{}", b"[]", b"3", b'{"files": 3}'])
def test_a_damaged_note_is_refused_by_name(store, content):
    (fill(store).folder / META).write_bytes(content)
    with pytest.raises(StoreError, match=r"meta\.json is damaged; delete the folder"):
        store.open(TASK)


def test_damaged_tensors_are_refused_by_name(tmp_path):
    path = tmp_path / "rows.safetensors"
    write_tensors(path, {"a": torch.ones(3, 4).T})
    assert torch.equal(read_tensors(path)["a"], torch.ones(4, 3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"rows\.safetensors is damaged .*delete it and run again"):
        read_tensors(path)


# ----------------------------------------------------------------------------------------------- atomic writes


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space"):
            write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_the_folder_reaches_the_disk_after_the_name_and_names_are_random(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace

    def sync(number):
        order.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(os.path.basename(a)), replace(a, b)))
    for _ in range(2):
        write_atomic(tmp_path / "file", b"12345")
    assert [order[place] for place in (0, 2, 3, 5)] == ["file", "folder", "file", "folder"]
    assert order[1] != order[4]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~store_module._umask()


def test_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "deep" / "file", b"12345")
    assert order[:2] == [5, "replace"]


# ---------------------------------------------------------------------------------- stores that cannot be written


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EPERM, "permission is denied"),
    ],
)
def test_the_systems_reasons_become_a_sentence(tmp_path, number, said):
    with pytest.raises(StoreError, match=said) as caught, explained(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in str(caught.value)
    assert "run the same command again" in str(caught.value)


def test_other_errors_of_the_system_are_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError), explained(tmp_path):
        (tmp_path / "nothing").read_text()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_store_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store_module, "write_atomic", fail)
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "store").prepare()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "store").write_text("a note")
    with pytest.raises(StoreError, match="a file is in the way"):
        Store(tmp_path / "store").prepare()
    with pytest.raises(StoreError, match="a file is in the way"):
        Store(tmp_path / "store" / "below").prepare()
    assert (tmp_path / "store").read_text() == "a note"


@pytest.fixture
def mounted(tmp_path):
    """A file system of its own of 256 KiB, mounted where that is allowed."""
    place = tmp_path / "mounted"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        refused = subprocess.run(words, capture_output=True).returncode
    except OSError:
        refused = 1
    if refused:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_mount(mounted):
    store = Store(mounted / "store")
    store.prepare()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(StoreError, match="it is mounted read-only"):
        store.prepare()
    with pytest.raises(StoreError, match="it is mounted read-only"):
        Store(mounted / "another").prepare()


def test_a_full_disk(mounted):
    store = Store(mounted / "store")
    store.prepare()
    kept = store.scratch(TASK) / "kept.safetensors"
    write_tensors(kept, {"a": torch.ones(100)})
    with pytest.raises(StoreError, match="the disk is full"), explained(store.root):
        write_tensors(store.scratch(TASK) / "big.safetensors", {"a": torch.ones(200_000)})
    assert [path.name for path in store.scratch(TASK).iterdir()] == ["kept.safetensors"]
    assert torch.equal(read_tensors(kept)["a"], torch.ones(100))


# ------------------------------------------------------------------------------------------- several runs, data


def test_a_task_is_held_by_one_at_a_time(store):
    found = []

    def other():
        with Store(store.root).claim(TASK) as free, Store(store.root).claim(FGSM(eps=0.5)) as another:
            found.append((free, another))

    with store.claim(TASK) as mine:
        assert mine
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [(False, True)]
    with Store(store.root).claim(TASK) as free:
        assert free


def test_a_claim_is_given_back_after_an_exception(store):
    with pytest.raises(KeyError), store.claim(TASK):
        raise KeyError
    with Store(store.root).claim(TASK) as free:
        assert free


def test_other_images_under_the_same_name_are_refused(store):
    store.pin_data(Digits(), "test", "a" * 64)
    store.pin_data(Digits(), "test", "a" * 64)
    store.pin_data(Digits(), "train", "b" * 64)  # another part
    store.pin_data(Digits(test=10), "test", "b" * 64)  # another description
    with pytest.raises(
        DataError, match=r"the test images of digits are not those .*bbbbbbbbbbbb now, aaaaaaaaaaaa then"
    ):
        store.pin_data(Digits(), "test", "b" * 64)
    with pytest.raises(DataError):  # and the first ones stay on record
        store.pin_data(Digits(), "test", "b" * 64)


def test_a_damaged_record_of_the_images_is_refused_by_name(store):
    store.pin_data(Digits(), "test", "a" * 64)
    next((store.root / "data").iterdir()).write_text("{")
    with pytest.raises(StoreError, match=r"-test\.json is damaged"):
        store.pin_data(Digits(), "test", "a" * 64)


# -------------------------------------------------------------------------------------------------- withdrawing


def test_a_new_store_in_which_nothing_was_done_disappears(store):
    store.pin_data(Digits(), "test", "a" * 64)
    with store.claim(TASK):
        pass
    store.withdraw()
    assert not store.root.exists()
    store.withdraw()  # nothing there is no error


@pytest.mark.parametrize(
    "kept", ["scratch/abc/rows.safetensors", "train/abc/meta.json", "reports/page.html", "mine.txt"]
)
def test_anything_that_was_made_or_put_there_stays(store, kept):
    (store.root / kept).parent.mkdir(parents=True, exist_ok=True)
    (store.root / kept).write_text("kept")
    store.withdraw()
    assert (store.root / kept).read_text() == "kept"


def test_a_store_in_which_another_run_is_at_work_stays(store):
    with Store(store.root).claim(TASK):
        store.withdraw()
        assert store.root.is_dir()
    store.withdraw()
    assert not store.root.exists()


def test_the_folder_follows_fields_versions_and_defaults():
    @dataclass(frozen=True)
    class Plain:
        a: int = 1

    assert digest(FGSM(eps=0.1)) != digest(dataclasses.replace(FGSM(eps=0.1), mode="train"))
    with pytest.raises(AttributeError):
        Store("x").folder(Plain())
