"""Runs a small training with its evaluation, dying by SIGKILL at chosen writes, and again until it is finished.

    python crash.py FOLDER FIRST STRIDE

For every k = FIRST, FIRST + STRIDE ... a store of its own: the first run dies at its k-th operation on the file
system, the second at its 12th, the third is left alone. Prints as JSON: {"operations": how many an undisturbed run
makes, "undisturbed": files, "crashed": {k: [deaths, files]}}, files by their SHA-256.
Processes are forked after the imports, which take longer than the work.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from pellucid.attacks import PGD
from pellucid.averaging import EMA
from pellucid.data import CropAndFlip, Digits
from pellucid.models import RossCNN
from pellucid.optimisers import Adam
from pellucid.store import Store, file_digest
from pellucid.tasks import Evaluate, Options, Train, run

DATA = Digits(train=30, validation=10, test=20)
TRAINED = Train(
    data=DATA,
    model=RossCNN(filters=(2, 3), hidden=8),
    optimiser=Adam(lr=0.01),
    steps=7,
    batch_size=10,
    log_every=3,
    augmentation=CropAndFlip(padding=2),
    average=EMA(decay=0.5),
    accumulate=2,
    watch=PGD(eps=0.05, steps=1),
    keep="attacked_training_accuracy",
)
ATTACKED = Evaluate(network=TRAINED, data=DATA, attack=PGD(eps=0.1, steps=2), epsilons=(0.0, 0.2), chunk=8)
FILES = (
    (TRAINED, ("model.safetensors", "history.json")),
    (ATTACKED, ("predictions.parquet", "sizes.parquet", "summary.json")),
)
DEATHS = 2
SECOND = 12  # the operation at which the second run dies
OPERATIONS = ((os, "fsync"), (os, "replace"), (os, "link"), (os, "rename"), (os, "unlink"), (shutil, "rmtree"))


def attempt(root: Path, deadly: int | None) -> tuple[bool, int]:
    """Run in a child process that dies before its n-th operation; return whether it lived, and its operations."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def mortal(original):
            def operation(*args, **given):
                nonlocal count
                count += 1
                if count == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **given)

            return operation

        for module, name in OPERATIONS:
            setattr(module, name, mortal(getattr(module, name)))
        run(ATTACKED, Store(root), Options(device="cpu", checkpoint_seconds=0.0))
        os.write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        count = int(pipe.read() or 0)
    _, status = os.waitpid(child, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) and status != 0:
        raise SystemExit(f"a run ended with status {status}")
    return status == 0, count


def results(root: Path) -> dict[str, object]:
    """Return what must be equal: the files, and the passes that were counted."""
    store = Store(root)
    found = {name: file_digest(store.open(task).folder / name) for task, names in FILES for name in names}
    return found | {f"passes of {task.title()}": store.open(task).meta["passes"] for task, _ in FILES}


def crashed(root: Path, first: int) -> list[object]:
    """Return how often a run died until it was finished, and its results."""
    deaths, deadly = 0, first
    while True:
        lived, _ = attempt(root, deadly if deaths < DEATHS else None)
        if lived:
            return [deaths, results(root)]
        deaths, deadly = deaths + 1, SECOND


if __name__ == "__main__":
    folder, first, stride = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _, operations = attempt(folder / "undisturbed", None)
    found = {k: crashed(folder / f"store-{k}", k) for k in range(first, operations + 1, stride)}
    print(json.dumps({"operations": operations, "undisturbed": results(folder / "undisturbed"), "crashed": found}))
