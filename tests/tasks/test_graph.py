import errno
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from pellucid import store as store_module
from pellucid import tasks
from pellucid.errors import DataError, PellucidError, StoreError, TrainingError
from pellucid.spec import Count, digest, member, register
from pellucid.store import Store
from pellucid.tasks import Watch, plan, run
from pellucid.tasks import graph as graph_module
from pellucid.tasks import io as io_module
from pellucid.tasks.graph import inputs, label, order, rehearse

from .conftest import ATTACKED, DATA, EXPLAINED, FAST, NORMS, ROSS, SMALL, Journal, Killed

TaskField = Annotated[Any, member("task")]


@register("task", "note_for_tests")
@dataclass(frozen=True, kw_only=True)
class Note:
    """Writes its number and what its inputs wrote."""

    number: Count
    needs: tuple[TaskField, ...] = ()
    seed: int = 0

    def run(self, io):
        if self.number == 13:
            raise DataError("thirteen is refused")
        if self.number == 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.number == 15:
            (io.scratch / "checkpoint").write_text("good")
            raise TrainingError("stopped at step 7")
        written = [(io.result(task).folder / "note.txt").read_text() for task in self.needs]
        (io.scratch / "note.txt").write_text(" ".join([str(self.number), *written]))
        return ["note.txt"]


ONE, TWO = Note(number=1), Note(number=2)
THREE = Note(number=3, needs=(ONE, TWO))
FOUR = Note(number=4, needs=(TWO, THREE))


# --------------------------------------------------------------------------------------------- plan and order


def test_inputs_are_found_in_tuples_and_fields():
    assert list(inputs(ATTACKED)) == [ROSS, SMALL]
    assert list(inputs(ONE)) == []


def test_everything_comes_after_what_it_needs_and_once():
    assert order(FOUR) == [TWO, ONE, THREE, FOUR]
    assert order(ATTACKED) == [ROSS, SMALL, ATTACKED]


def test_equal_descriptions_are_one_task():
    twin = Note(number=3, needs=(Note(number=1), Note(number=2)))
    assert order(Note(number=5, needs=(THREE, twin))) == [ONE, TWO, THREE, Note(number=5, needs=(THREE, twin))]


def test_the_plan_says_what_is_done(store):
    assert [(step.task, step.done) for step in plan(THREE, store)] == [(ONE, False), (TWO, False), (THREE, False)]
    assert not store.root.exists()
    run(TWO, store)
    assert [step.done for step in plan(THREE, store)] == [False, True, False]


def test_results_flow_along_the_graph_and_are_computed_once(store):
    journal = Journal()
    result = run(FOUR, store, watch=journal)
    assert (result.folder / "note.txt").read_text() == "4 2 3 1 2"
    assert journal.tasks("started") == journal.tasks("finished") == [TWO, ONE, THREE, FOUR]
    again = Journal()
    assert run(FOUR, store, watch=again).folder == result.folder
    assert again.lines == [("planned", [True] * 4)]
    other = Journal()
    run(Note(number=6, needs=(THREE,)), store, watch=other)
    assert other.tasks("started") == [Note(number=6, needs=(THREE,))]


def test_labels_are_for_people():
    assert label(ROSS).startswith("train ross_cnn")
    assert "fgsm" in label(ATTACKED)
    assert "clean accuracy" in label(replace(ATTACKED, attack=None, epsilons=(0.0,)))
    assert label(EXPLAINED).startswith("explain")
    assert label(ONE) == "note_for_tests"


# -------------------------------------------------------------------------------------------------- refusals


def test_a_refusal_leaves_no_new_store(store):
    with pytest.raises(DataError, match="thirteen"):
        run(Note(number=13), store)
    assert not store.root.exists()


def test_a_refusal_keeps_a_store_that_was_there_and_what_was_finished(store):
    with pytest.raises(DataError):
        run(Note(number=13, needs=(THREE,)), store)
    assert store.has(THREE)
    assert not store.scratch(Note(number=13, needs=(THREE,))).exists()
    with pytest.raises(DataError):
        run(Note(number=13), store)
    assert store.open(THREE).meta["digest"] == digest(THREE)


def test_what_a_failed_task_kept_stays(store):
    with pytest.raises(TrainingError, match="step 7"):
        run(Note(number=15), store)
    assert (store.scratch(Note(number=15)) / "checkpoint").read_text() == "good"


def test_a_disk_that_fills_up_is_a_sentence_and_costs_nothing_that_was_finished(store):
    with pytest.raises(StoreError, match=r"the disk is full; what was finished is kept"):
        run(Note(number=14, needs=(THREE,)), store)
    assert store.has(THREE)
    assert not store.has(Note(number=14, needs=(THREE,)))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("after", [1, 2, 5, 9, 12])
def test_a_disk_that_fills_up_anywhere_and_is_emptied_changes_no_result(store, monkeypatch, filled, number, after):
    """The n-th write fails; the same command goes on once there is room."""
    writes = []
    write = os.replace

    def limited(a, b):
        writes.append(b)
        if len(writes) > after:
            raise OSError(number, os.strerror(number))
        write(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", limited)
        with pytest.raises(StoreError, match="cannot be written"):
            run(ROSS, store, FAST)
    result = run(ROSS, store, FAST)
    assert (result.folder / "model.safetensors").read_bytes() == (
        filled.folder(ROSS) / "model.safetensors"
    ).read_bytes()


def test_a_full_disk_at_the_first_write_leaves_no_new_store(store, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        run(ONE, store)
    assert not store.root.exists()


def test_a_changed_file_in_the_store_stops_whoever_needs_it(store):
    run(THREE, store)
    (store.folder(ONE) / "note.txt").write_text("9")
    with pytest.raises(StoreError, match=r"note\.txt is missing or was changed"):
        run(Note(number=7, needs=(ONE,)), store)
    assert run(Note(number=7, needs=(TWO,)), store)


def test_an_input_that_vanishes_is_an_error_and_not_a_wait(store, monkeypatch):
    run(THREE, store)
    monkeypatch.setattr(graph_module.time, "sleep", lambda _: pytest.fail("it waits for nobody"))

    class Thief(Watch):
        def planned(self, steps):
            assert [step.done for step in steps] == [True, True, True, False]
            shutil.rmtree(store.folder(TWO))

    with pytest.raises(StoreError, match=r"note_for_tests was there and has gone from .*run again to make it again"):
        run(FOUR, store, watch=Thief())
    assert (run(FOUR, store).folder / "note.txt").read_text() == "4 2 3 1 2"  # what the sentence says


def test_a_finished_store_may_be_read_only(store, monkeypatch):
    run(THREE, store)

    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store_module, "write_atomic", fail)
    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr(store_module, "FileLock", fail)
    assert (run(THREE, store).folder / "note.txt").read_text() == "3 1 2"
    with pytest.raises(StoreError, match="it is mounted read-only"):
        run(FOUR, store)


def test_missing_data_is_refused_before_anything_is_written(store, monkeypatch, tmp_path):
    from pellucid.data import MNIST

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setattr("pellucid.data.hub.download", _no_hub)
    with pytest.raises(PellucidError, match="mnist"):
        run(replace(ROSS, data=MNIST()), store)
    assert not store.root.exists()


def _no_hub(source, *_):
    raise DataError(f"{source.name} is not here")


# ---------------------------------------------------------------------------------------------- several runs


def test_a_task_that_another_run_holds_is_waited_for(store, monkeypatch):
    """The other run, on the same store, finishes while this one waits."""
    store.prepare()
    waited = []

    class Patient(Watch):
        def waiting(self, task):
            waited.append(task)

    other = Store(store.root)
    held = other.claim(ONE)
    assert held.__enter__()

    def finish_elsewhere(_):
        other.scratch(ONE).mkdir(parents=True)
        (other.scratch(ONE) / "note.txt").write_text("from elsewhere")
        other.commit(ONE, {"wall_seconds": 0, "passes": {}, "data": {}}, ["note.txt"])
        held.__exit__(None, None, None)

    monkeypatch.setattr(graph_module.time, "sleep", finish_elsewhere)
    result = run(THREE, store, watch=Patient())
    assert waited == [ONE]
    assert (result.folder / "note.txt").read_text() == "3 from elsewhere 2"


def test_what_is_free_is_done_before_waiting(store, monkeypatch):
    store.prepare()
    journal = Journal()
    other = Store(store.root)
    held = other.claim(ONE)
    held.__enter__()
    monkeypatch.setattr(graph_module.time, "sleep", lambda _: held.__exit__(None, None, None))
    run(THREE, store, watch=journal)
    assert journal.tasks("started") == [TWO, ONE, THREE]


# ------------------------------------------------------------------------------------- what is recorded, resume


def test_every_result_carries_its_circumstances(filled):
    for task in (ROSS, SMALL, ATTACKED, EXPLAINED, NORMS):
        meta = filled.open(task).meta
        assert meta["seed"] == getattr(task, "seed", None)  # none where nothing is drawn
        assert meta["versions"].keys() >= {"pellucid", "python", "torch", "numpy", "scipy"}
        assert meta["versions"]["torch"] == torch.__version__
        assert meta["threads"] == torch.get_num_threads()
        assert meta["device"].startswith("cpu")
        assert meta["wall_seconds"] > 0
        assert meta["passes"]["forward"] > 0
        assert meta["passes"]["backward"] > 0
        assert {"commit", "finished", "task", "digest", "files"} <= meta.keys()
        for used in meta["data"].values():
            assert used.keys() >= {"name", "sha256", "images", "cut", "source"}
    assert filled.open(replace(ROSS)).meta["data"]["train"]["images"] == 60


def test_the_commit_is_that_of_the_checkout(filled):
    commit = filled.open(ROSS).meta["commit"]
    if not (Path(tasks.__file__).parents[3] / ".git").exists():
        pytest.skip("not a checkout")
    assert len(commit.split(" with changes")[0]) == 40


def test_inside_somebody_elses_checkout_there_is_no_commit(tmp_path, monkeypatch):
    """Installed into a folder that a foreign repository ignores, as .venv is, or just does not know."""
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(".venv\n")
    package = tmp_path / ".venv" / "pellucid"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(io_module.pellucid, "__file__", str(package / "__init__.py"))
    assert io_module.commit.__wrapped__() is None
    subprocess.run(["git", "add", "-f", "."], cwd=tmp_path, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"], cwd=tmp_path, check=True
    )
    clean = io_module.commit.__wrapped__()
    assert len(clean) == 40
    (package / "__init__.py").write_text("changed")
    assert io_module.commit.__wrapped__() == f"{clean} with changes"


def test_who_worked_on_a_task_before_is_recorded(filled, store, monkeypatch):
    shutil.copytree(filled.root, store.root)
    shutil.rmtree(store.folder(ATTACKED))
    with monkeypatch.context() as patch:
        patch.setattr(io_module, "commit", lambda: "of another day")
        for place in ((10, 25), (20, 25)):  # twice the same, recorded once
            with pytest.raises(Killed):
                run(ATTACKED, store, FAST, Journal(die_at=place))
    meta = run(ATTACKED, store, FAST).meta
    (earlier,) = meta["earlier"]
    assert earlier["commit"] == "of another day" != meta["commit"]
    assert earlier.keys() == {"versions", "threads", "device", "commit"}
    assert "earlier" not in filled.open(ATTACKED).meta  # and nobody is nobody


def test_a_task_signs_before_it_works_and_a_refused_one_leaves_nothing(store):
    with pytest.raises(DataError, match="thirteen"):
        run(Note(number=13, needs=(ONE,)), store)
    assert list((store.root / "scratch").iterdir()) == []
    with pytest.raises(TrainingError):
        run(Note(number=15), store)
    names = sorted(path.name for path in store.scratch(Note(number=15)).iterdir())
    assert names == ["checkpoint", "task.json", "workers.json"]


def test_seed_and_wall_time_of_a_task_without_parts(store):
    meta = run(Note(number=1, seed=5), store).meta
    assert meta["seed"] == 5
    assert meta["passes"] == {"forward": 0, "backward": 0}
    assert "wall_seconds" in meta


@pytest.mark.parametrize(
    ("task", "place", "files"),
    [
        (ROSS, (4, 9), ("model.safetensors", "history.json", "config.json")),
        (ATTACKED, (20, 25), ("predictions.parquet", "sizes.parquet", "summary.json")),
        (EXPLAINED, (10, 12), ("maps.safetensors",)),
        (NORMS, (5, 12), ("norms.parquet",)),
    ],
    ids=["train", "evaluate", "explain", "input_gradients"],
)
def test_killed_in_the_middle_it_goes_on_and_ends_equal(filled, store, task, place, files):
    shutil.copytree(filled.root, store.root)
    shutil.rmtree(store.folder(task))
    with pytest.raises(Killed):
        run(task, store, FAST, Journal(die_at=place))
    assert any(store.scratch(task).iterdir())
    parts = {path: path.stat().st_mtime_ns for path in store.scratch(task).glob("rows-*")}
    journal = Journal()
    result = run(task, store, FAST, journal)
    assert journal.tasks("started") == [task]
    for name in files:
        assert (result.folder / name).read_bytes() == (filled.folder(task) / name).read_bytes()
    assert result.meta["passes"] == filled.open(task).meta["passes"]
    if task is ROSS:
        assert (4, 9) not in journal.lines  # went on after step 4
    else:
        assert len(parts) == place[0] // task.chunk
    assert not store.scratch(task).exists()


def test_finished_parts_are_read_and_not_made_again(filled, store, monkeypatch):
    shutil.copytree(filled.root, store.root)
    shutil.rmtree(store.folder(ATTACKED))
    with pytest.raises(Killed):
        run(ATTACKED, store, FAST, Journal(die_at=(20, 25)))
    made = []
    original = tasks.measuring.make_and_judge
    monkeypatch.setattr(tasks.measuring, "make_and_judge", lambda *a: (made.append(len(a[2])), original(*a))[1])
    run(ATTACKED, store, FAST)
    assert made == [5]


def test_a_damaged_part_is_refused_by_name_and_nothing_is_lost(filled, store):
    shutil.copytree(filled.root, store.root)
    shutil.rmtree(store.folder(ATTACKED))
    with pytest.raises(Killed):
        run(ATTACKED, store, FAST, Journal(die_at=(20, 25)))
    part = store.scratch(ATTACKED) / "rows-0000010.safetensors"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"rows-0000010\.safetensors is damaged"):
        run(ATTACKED, store, FAST)
    part.unlink()  # what the sentence says
    result = run(ATTACKED, store, FAST)
    name = "predictions.parquet"
    assert (result.folder / name).read_bytes() == (filled.folder(ATTACKED) / name).read_bytes()


def test_a_damaged_ledger_is_refused_by_name(filled, store):
    shutil.copytree(filled.root, store.root)
    shutil.rmtree(store.folder(ATTACKED))
    with pytest.raises(Killed):
        run(ATTACKED, store, FAST, Journal(die_at=(20, 25)))
    (store.scratch(ATTACKED) / "ledger.json").write_text("{")
    with pytest.raises(StoreError, match=r"ledger\.json is damaged"):
        run(ATTACKED, store, FAST)


# ---------------------------------------------------------------------------------------------------- estimates


def test_estimates_write_nothing_and_say_where_they_cannot_tell(store):
    for task in (ROSS, ATTACKED):
        cost = rehearse(task, store, FAST)
        assert cost is not None
        assert 0 <= cost.seconds < 60
    assert rehearse(ONE, store) is None
    assert not store.root.exists()


def test_an_estimate_grows_with_the_work(store):
    short = rehearse(replace(ROSS, steps=1000), store, FAST)
    long = rehearse(replace(ROSS, steps=100_000), store, FAST)
    assert long.forward == pytest.approx(100 * short.forward)
    assert long.flops == pytest.approx(100 * short.flops)
    assert long.seconds > 5 * short.seconds > 0


def test_a_description_of_the_data_that_went_is_refused(store):
    run(ROSS, store, FAST)
    note = next((store.root / "data").glob("*-train.json"))
    table = json.loads(note.read_text())
    note.write_text(json.dumps(table | {"sha256": "0" * 64}))
    with pytest.raises(DataError, match="the train images of digits are not those"):
        run(replace(ROSS, seed=1), store, FAST)
    assert run(ROSS, store, FAST).meta["data"]["train"]["sha256"] == DATA.load("train").sha256
