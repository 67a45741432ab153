"""The command line on a study of seconds, which stops and waits where it is told to be killed.

    python driver.py [--pause NAME] WORDS ...

NAME is the end of a file's path. Once such a file is written, the driver writes PAUSED in its working folder and
sleeps, so that SIGKILL finds it at that very point; a training checkpoint is given as `checkpoint.safetensors@STEP`.
"""

import dataclasses
import functools
import sys
import time
from pathlib import Path

from pellucid import store, tasks, train
from pellucid.cli import main
from pellucid.data import Digits
from pellucid.models import RossCNN, SmallCNN
from pellucid.studies import ross2018

TINY = {
    "data": Digits(train=60, validation=30, test=40),
    "steps": 14,
    "small_steps": 14,
    "batch_size": 10,
    "log_every": 4,
    "explained": 6,
    "measured": 20,
}
SMALLER = {RossCNN: RossCNN(filters=(3, 4), hidden=16), SmallCNN: SmallCNN(filters=(3, 4, 8))}


def shrink() -> None:
    """Make the smoke scale smaller: everything it does, in seconds."""
    ross2018.SCALES["smoke"] = dataclasses.replace(ross2018.SCALES["smoke"], **TINY)
    train_task, transfer = ross2018._train, ross2018._transfer

    def small(scale, model, defence, steps):
        return train_task(scale, SMALLER[type(model)], defence, steps)

    def in_chunks(scale, networks, maker):
        return dataclasses.replace(transfer(scale, networks, maker), chunk=16)

    ross2018._train, ross2018._transfer = small, in_chunks
    tasks.Options = functools.partial(tasks.Options, checkpoint_seconds=0.0)


def pause_after(place: str) -> None:
    """Wait for SIGKILL once a file whose path ends so is written."""
    name, _, step = place.partition("@")
    write = store.write_atomic

    def watched(path, content):
        write(path, content)
        if str(path).endswith(name) and (not step or f'\\"step\\": {step},'.encode() in content[:20000]):
            Path("PAUSED").touch()
            time.sleep(600)

    store.write_atomic = watched
    from pellucid.studies import ross2018_report

    ross2018_report.write_atomic = watched


if __name__ == "__main__":
    words = sys.argv[1:]
    shrink()
    if words[0] == "--pause":
        pause_after(words[1])
        words = words[2:]
    assert train.write_tensors is store.write_tensors  # which calls store.write_atomic
    sys.exit(main(words))
