"""A whole study through the command line: what it prints, what it records, what it plans."""

import json
import shutil
from pathlib import Path

import pytest

from .conftest import STUDY, contents


def test_a_study_prints_its_claims_and_its_report(undisturbed):
    out, err = json.loads((undisturbed / "said.json").read_text())
    told = json.loads(out)
    assert (told["study"], told["scale"]) == ("ross2018", "smoke")
    assert [claim["name"] for claim in told["claims"]] == ["L1", "L2", "L6", "L7"]
    report = Path(told["report"])
    assert report == undisturbed / "store" / "reports" / "ross2018-smoke" / "report.html"
    assert "<html" in report.read_text()[:500]
    files = {path.name for path in report.parent.rglob("*")}
    assert files >= {"report.html", "tables.md", "tables.json", "curves.png"}
    words = [line.split()[0] for line in err.splitlines()]
    assert words == ["21", *["start", "done"] * 21]  # plain lines, since nobody watches a terminal


def test_every_result_of_a_study_carries_its_circumstances(undisturbed):
    notes = [json.loads(path.read_text()) for path in (undisturbed / "store").glob("*/*/meta.json")]
    assert len(notes) == 21
    for note in notes:
        assert note["seed"] == note["task"].get("seed")  # None where nothing is drawn
        assert note["seed"] == 0 or note["task"]["task"] not in ("train", "evaluate", "explain")
        assert note["threads"] == 1
        assert note["device"].startswith("cpu")
        assert note["wall_seconds"] > 0, note["task"]
        assert note["versions"].keys() >= {"pellucid", "torch", "python"}
        assert {"commit", "finished", "files"} <= note.keys()
        works = note["task"]["task"] in ("train", "evaluate", "explain", "input_gradients")
        assert (note["passes"]["forward"] > 0) == (note["passes"]["backward"] > 0) == works
        assert bool(note["data"]) == works


def test_plan_and_report_where_the_cheap_part_is_missing(runs, undisturbed):
    store = runs.folder / "store"
    shutil.copytree(undisturbed / "store", store)
    for name in ("ross2018_tables", "ross2018_report", "reports"):
        shutil.rmtree(store / name)
    shutil.rmtree(next((store / "input_gradients").iterdir()))
    words = ("ross2018", "--store", "store", "--threads", "1", "--json")

    code, out, _ = runs.finish("report", *words)  # trains, attacks and measures nothing
    assert code == 2
    assert "1 results of ross2018 at scale smoke are missing" in json.loads(out)["error"]

    code, out, _ = runs.finish("study", "show", *words)
    assert code == 0
    plan = json.loads(out)
    missing = [row["task"] for row in plan["tasks"] if not row["done"]]
    assert len(missing) == 3
    assert len(plan["tasks"]) == 21
    assert plan["missing_seconds"] >= 0

    shutil.rmtree(store / "input_gradients")
    shutil.copytree(undisturbed / "store" / "input_gradients", store / "input_gradients")
    code, out, said = runs.finish("report", *words)
    assert code == 0
    assert sum(line.startswith("start") for line in said.splitlines()) == 2
    assert Path(json.loads(out)["report"]).is_file()
    assert contents(store) == contents(undisturbed / "store")


def test_another_thread_count_finds_the_same_results(runs, undisturbed):
    """How work is run does not change its place in the store."""
    shutil.copytree(undisturbed / "store", runs.folder / "store")
    words = ["2" if word == "1" else word for word in STUDY]
    code, _, said = runs.finish(*words)
    assert code == 0
    assert said.splitlines() == ["21 tasks, 21 of them done"]


@pytest.mark.slow
def test_the_smoke_scale_as_it_is(runs):
    """About a minute on two cores: the study that `make demo` runs."""
    script = runs.folder / "plain.py"
    script.write_text("import sys\nfrom pellucid.cli import main\nsys.exit(main())\n")
    code, out, said = runs.finish(*STUDY, "--scale", "smoke", "--json", script=script)
    assert code == 0, said
    told = json.loads(out)
    assert told["images"] == 400
    for label in told["labels"]:
        clean = told["transfer"]["normal"][label][0]
        assert clean["value"] > 0.75, label
        own = [point["value"] for point in told["transfer"][label][label]]
        assert own[0] > own[3] >= 0
    assert {claim["verdict"] for claim in told["claims"]} <= {"holds", "does not hold", "cannot be decided"}
    again, _, quiet = runs.finish(*STUDY, "--json", script=script)
    assert again == 0
    assert "21 tasks, 21 of them done" in quiet
