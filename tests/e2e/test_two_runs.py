"""Two runs on one store at once: they share the work and both end well."""

import json

from .conftest import PATIENCE, STUDY, contents


def test_two_runs_share_a_store(runs, undisturbed):
    processes = [runs.start(*STUDY, "--json") for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    done = [line for _, err in said for line in err.splitlines() if line.startswith("done")]
    started = [line for _, err in said for line in err.splitlines() if line.startswith("start")]
    assert len(started) == len(done) == 21  # every task once, by one of them
    assert contents(runs.folder / "store") == contents(undisturbed / "store")
    tables = [json.loads(out) for out, _ in said]
    assert tables[0] == tables[1]
    assert tables[0]["claims"] == json.loads(json.loads((undisturbed / "said.json").read_text())[0])["claims"]
