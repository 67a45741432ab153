"""Killed with SIGKILL and started again, work ends as if nothing had been: equal to the bit at one thread."""

import json
from pathlib import Path

import pytest

from .conftest import HERE, STUDY, Runs, contents


def test_a_study_killed_while_it_trains_attacks_and_reports_ends_with_the_same_tables(runs, undisturbed):
    """Six batches are an epoch, so step 9 is in the middle of the second; rows 16 to 31 are the second chunk."""
    store = runs.folder / "store"
    runs.kill_at("checkpoint.safetensors@9", *STUDY)
    assert len(list(store.glob("scratch/*/checkpoint.safetensors"))) == 1
    assert not (store / "train").exists()

    _, before = runs.kill_at("rows-0000016.safetensors", *STUDY)
    assert len(list((store / "train").iterdir())) >= 1
    assert sorted(path.name for path in store.glob("scratch/*/rows-*")) == [
        "rows-0000000.safetensors",
        "rows-0000016.safetensors",
    ]

    _, said = runs.kill_at("figures/curves.png", *STUDY)
    assert "start  report" in said
    done, started = lines("done", before), lines("start", said)
    assert f"21 tasks, {len(done)} of them done" in said  # and those are not started again
    assert len(started) == 21 - len(done)
    assert started[0] == lines("start", before)[-1]  # the evaluation that was killed
    assert list(store.glob("scratch/*/report.html"))
    assert not (store / "ross2018_report").exists()

    runs.kill_at("reports/ross2018-smoke/report.html", *STUDY)
    code, out, said = runs.finish(*STUDY)
    assert code == 0
    assert "start" not in said
    assert Path(out.splitlines()[-1]).is_file()
    found, expected = contents(store), contents(undisturbed / "store")
    assert found.keys() == expected.keys()
    assert [name for name, content in expected.items() if found[name] != content] == []
    assert not any((store / "scratch").iterdir())


def lines(word, said):
    return [line[7:].split(" in ")[0] for line in said.splitlines() if line.startswith(word)]


@pytest.mark.parametrize(
    ("first", "stride"), [(5, 23), pytest.param(1, 3, marks=pytest.mark.slow)], ids=["four", "every third"]
)
def test_killed_at_any_write_training_and_attack_end_equal(tmp_path, first, stride):
    code, out, said = Runs(tmp_path).finish(tmp_path, first, stride, script=HERE / "crash.py")
    assert code == 0, said
    found = json.loads(out)
    assert found["operations"] > 60
    assert len(found["crashed"]) >= 4
    for place, (deaths, results) in found["crashed"].items():
        assert deaths == 2, place
        assert results == found["undisturbed"], place
