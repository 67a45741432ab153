import math
import os
import re
import subprocess
import sys
import textwrap

import pytest

from pellucid.errors import PellucidError
from pellucid.tracking import TensorBoard, TrackingError


def test_a_missing_package_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TrackingError) as caught:
        TensorBoard(tmp_path / "runs")
    assert str(caught.value) == "tensorboard is not installed: pip install 'pellucid[tracking]'"
    assert isinstance(caught.value, PellucidError)
    assert not (tmp_path / "runs").exists()


class TestWriting:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("tensorboard", reason="tensorboard is an extra: pip install 'pellucid[tracking]'")

    @staticmethod
    def read(folder, purge=True):
        """Return {tag: [(step, value)]} as TensorBoard itself shows them."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=purge)
        events.Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def test_figures_come_back(self, tmp_path):
        tracker = TensorBoard(tmp_path)
        tracker.log(10, {"step": 10, "cross_entropy": 0.5, "validation_accuracy": 0.25})
        tracker.log(20, {"cross_entropy": 0.125, "validation_accuracy": math.inf})
        tracker.close()
        assert self.read(tmp_path) == {
            "cross_entropy": [(10, 0.5), (20, 0.125)],
            "validation_accuracy": [(10, 0.25), (20, math.inf)],
        }

    def test_every_call_reaches_the_disk(self, tmp_path):
        tracker = TensorBoard(tmp_path)
        for step in (1, 2):
            tracker.log(step, {"loss": step})
            assert self.read(tmp_path)["loss"][-1] == (step, step)
        tracker.close()

    def test_after_a_resume_no_step_is_there_twice(self, tmp_path):
        first = TensorBoard(tmp_path)
        for step in range(1, 6):
            first.log(step, {"loss": step, "accuracy": 0})
        first.close()
        second = TensorBoard(tmp_path)  # the checkpoint was of step 3
        second.log(4, {"loss": 40, "accuracy": 1})
        second.close()
        assert self.read(tmp_path) == {
            "loss": [(1, 1), (2, 2), (3, 3), (4, 40)],
            "accuracy": [(1, 0), (2, 0), (3, 0), (4, 1)],
        }
        assert (5, 5) in self.read(tmp_path, purge=False)["loss"]  # so it is the purge that hides it

    def test_a_killed_process_loses_nothing_and_is_gone_on_from(self, tmp_path):
        program = f"""
        import os, signal
        from pellucid.tracking import TensorBoard
        tracker = TensorBoard({str(tmp_path)!r})
        for step in (10, 20, 30):
            tracker.log(step, {{"loss": step}})
        os.kill(os.getpid(), signal.SIGKILL)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True)
        assert done.returncode == -9, done.stderr
        assert self.read(tmp_path)["loss"] == [(10, 10), (20, 20), (30, 30)]
        (events,) = tmp_path.iterdir()
        prefix, second, rest = re.fullmatch(r"(.*tfevents\.)(\d+)(\..*)", events.name).groups()
        events.rename(tmp_path / f"{prefix}{int(second) - 60:010}{rest}")  # TensorBoard orders files by second
        tracker = TensorBoard(tmp_path)
        tracker.log(30, {"loss": 31})
        tracker.log(40, {"loss": 41})
        tracker.close()
        assert self.read(tmp_path)["loss"] == [(10, 10), (20, 20), (30, 31), (40, 41)]

    def test_logging_goes_on_after_closing(self, tmp_path):
        tracker = TensorBoard(tmp_path)
        tracker.log(1, {"loss": 1})
        tracker.close()
        tracker.close()
        tracker.log(2, {"loss": 2})
        tracker.close()
        assert self.read(tmp_path)["loss"] == [(1, 1), (2, 2)]

    def test_a_tracker_that_logs_nothing_writes_nothing(self, tmp_path):
        TensorBoard(tmp_path / "runs").close()
        assert os.listdir(tmp_path / "runs") == []

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(TrackingError, match=r"cannot be written .*; choose another"):
            TensorBoard(tmp_path / "file" / "runs")
        tracker = TensorBoard(tmp_path / "runs")
        (tmp_path / "runs").rmdir()
        (tmp_path / "runs").write_text("in the way")
        with pytest.raises(TrackingError, match="runs cannot be written"):
            tracker.log(1, {"loss": 1})
