"""A part whose work is cut into pieces goes on after the last finished one, and its cost is counted whole."""

import pytest
import torch

from pellucid.maths.passes import note_forward
from pellucid.maths.resume import kept
from pellucid.tasks.io import Io

from .conftest import ATTACKED


def test_pieces_survive_a_kill_and_go_once_the_part_is_whole(store):
    io = Io(ATTACKED, store)
    io.scratch.mkdir(parents=True)
    made = []

    def piece(number):
        made.append(number)
        note_forward(10)
        return {"x": torch.full((2,), float(number))}

    def work(breaks):
        total = torch.zeros(2)
        for number in range(3):
            if breaks and number == 2:
                raise KeyboardInterrupt
            total = total + kept(f"stage-{number}", lambda number=number: piece(number))["x"]
        note_forward(1)
        return {"x": total}

    with pytest.raises(KeyboardInterrupt):
        io.part("rows-0", lambda: work(breaks=True))
    assert len(list(io.scratch.glob("rows-0--stage-*.safetensors"))) == 2
    again = Io(ATTACKED, store)
    assert again.part("rows-0", lambda: work(breaks=False))["x"].tolist() == [3, 3]
    assert made == [0, 1, 2]
    assert [path.name for path in io.scratch.glob("*.safetensors")] == ["rows-0.safetensors"]
    assert again.meta()["passes"] == {"forward": 31, "backward": 0}
    assert again.part("rows-0", lambda: work(breaks=True))["x"].tolist() == [3, 3]
