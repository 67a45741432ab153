"""pellucid train killed with SIGKILL: --resume alone goes on with it, and nobody could tell afterwards."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import contents

WORDS = (
    "train", "--data", "digits", "data.train=60", "data.validation=20", "--model", "small_cnn", "model.filters=3,4,5",
    "--defence", "int2", "attack=pgd", "attack.eps=0.1", "attack.steps=2", "--average", "ema", "--watch", "fgsm",
    "watch.eps=0.1", "--keep", "attacked_accuracy", "--augmentation", "flip", "--steps", "9", "--batch-size", "20",
    "log_every=1",
)  # fmt: skip
BOARD = ("--tensorboard", "boards") if find_spec("tensorboard") else ()  # an extra
HOW = ("--threads", "1", "--quiet", "--json")
COUNTING = """
import sys
from pellucid import train
from pellucid.cli import main
step = train.Loop._step
def noted(self, stop):
    with open("STEPS", "a") as file:
        print(self.position.step, file=file)
    return step(self, stop)
train.Loop._step = noted
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_training_is_resumed_without_a_word_and_ends_with_the_same_bits(runs):
    runs.kill_at("checkpoint.safetensors@5", *WORDS, "--store", "store", *HOW, *BOARD)
    store = runs.folder / "store"
    assert len(list(store.glob("scratch/*/checkpoint.safetensors"))) == 1
    assert not (store / "train").exists()

    counting = runs.folder / "counting.py"
    counting.write_text(COUNTING)
    code, out, said = runs.finish("train", "--resume", "--store", "store", *HOW, *BOARD, script=counting)
    assert code == 0, said
    assert [int(step) for step in (runs.folder / "STEPS").read_text().split()] == [5, 6, 7, 8]
    told = json.loads(out)
    assert [row["step"] for row in told["history"]] == list(range(1, 10))
    assert told["meta"]["passes"]["backward"] > 0

    code, out, said = runs.finish(*WORDS, "--store", "undisturbed", *HOW, script=counting)
    assert code == 0, said
    plain = json.loads(out)
    assert plain["meta"]["passes"] == told["meta"]["passes"]
    expected = contents(runs.folder / "undisturbed")
    assert sorted(Path(name).name for name in expected) == ["history.json", "model.safetensors"]
    found = contents(store)
    assert [name for name, content in expected.items() if found[name] != content] == []
    assert not any((store / "scratch").iterdir())
    if BOARD:
        curves(runs.folder / "boards", told["history"])


def curves(boards, history):
    """See that both processes wrote into one folder, which has every step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = boards.iterdir()
    assert len(list(folder.iterdir())) == 2
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    found = [(each.step, each.value) for each in events.Scalars("attacked_accuracy")]
    assert found == [(row["step"], pytest.approx(row["attacked_accuracy"])) for row in history]
