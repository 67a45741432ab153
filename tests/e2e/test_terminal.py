"""Long work on a terminal: a live bar with loss, accuracy so far and time left; plain lines elsewhere."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from .conftest import DRIVER, PATIENCE, environment

WORDS = (
    "train", "--data", "digits", "data.validation=100", "--model", "ross_cnn", "model.filters=8,16", "model.hidden=64",
    "--steps", "260", "--batch-size", "64", "--threads", "1", "--store", "store",
)  # fmt: skip


def on_a_terminal(folder, *words, columns=100):
    """Run the driver with a terminal of its own; return the exit code and all that the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {key: value for key, value in environment().items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), *words],
        cwd=folder,
        env=env | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    sent, end = b"", time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):  # the terminal closes with the process
        while time.monotonic() < end:
            if select.select([ours], [], [], 1)[0]:
                part = os.read(ours, 65536)
                if not part:
                    break
                sent += part
    os.close(ours)
    return process.wait(timeout=PATIENCE), sent.decode(errors="replace")


def test_a_live_bar_with_loss_accuracy_and_time_left(tmp_path):
    code, sent = on_a_terminal(tmp_path, *WORDS)
    assert code == 0, sent
    assert "\x1b[" in sent
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    frames = [line for line in re.split(r"[\r\n]+", shown) if "train ross_cnn" in line]
    assert len(frames) > 5  # redrawn while it ran
    places = [int(found[1]) for line in frames if (found := re.search(r"(\d+)/260", line))]
    assert places == sorted(places)
    assert len(set(places)) > 3
    assert any(re.search(r"loss \d+\.\d", line) for line in frames)
    assert any(re.search(r"loss \S+ +accuracy \d+\.\d%", line) for line in frames)
    assert any(re.search(r"left 0:\d\d:\d\d", line) for line in frames)
    assert shown.rstrip().splitlines()[-1].startswith(str(tmp_path / "store" / "train"))
    assert "✓" in shown


def test_quiet_on_a_terminal(tmp_path):
    short = [word if word != "260" else "2" for word in WORDS]
    code, sent = on_a_terminal(tmp_path, *short, "--quiet", "--json")
    assert code == 0
    assert "\x1b" not in sent
    assert sent.lstrip().startswith("{")
    assert sent.rstrip().endswith("}")
