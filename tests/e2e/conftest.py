"""Processes that run the command line on a study of seconds, and one undisturbed run of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
DRIVER = HERE / "driver.py"
PATIENCE = 600  # seconds; nothing here takes a tenth of that on a machine that has nothing else to do
STUDY = ("study", "run", "ross2018", "--threads", "1", "--store", "store")


def environment():
    """One thread that waits without spinning, and a fixed width for tables."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "100"}


class Runs:
    """Starts the driver in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *words, script=DRIVER):
        return subprocess.Popen(
            [sys.executable, str(script), *map(str, words)],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *words, script=DRIVER):
        process = self.start(*words, script=script)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def kill_at(self, place, *words):
        """Start, wait until the driver pauses at the place, and SIGKILL it there."""
        mark = self.folder / "PAUSED"
        mark.unlink(missing_ok=True)
        process = self.start("--pause", place, *words)
        end = time.monotonic() + PATIENCE
        while not mark.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if not mark.exists():
            process.kill()
            raise AssertionError(f"{place} was never reached: {process.communicate()[1]}")
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -9
        return out, err


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of a finished study; made once, also where several workers of pytest need it. Read only."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "undisturbed"
    with FileLock(base / "undisturbed.lock"):
        if not (folder / "said.json").exists():
            folder.mkdir()
            code, out, err = Runs(folder).finish(*STUDY, "--json")
            assert code == 0, err
            (folder / "said.json").write_text(json.dumps([out, err]))
    return folder


def contents(store: Path) -> dict[str, bytes]:
    """Return every result file that must be equal to the bit: all but records of time, and pages that show them."""
    ours = (
        "model.safetensors",
        "history.json",
        "predictions.parquet",
        "sizes.parquet",
        "norms.parquet",
        "summary.json",
    )
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.name in (*ours, "maps.safetensors", "tables.json") and "scratch" not in path.parts
    }
