"""A part whose work is cut into pieces goes on after the last finished one, and its cost is counted whole."""

import pytest
import torch
from torch import nn

from pellucid.attacks import FGSM, PGD, AutoAttack, UniversalPerturbation
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


def test_a_name_asked_for_again_is_other_work(store):
    io = Io(ATTACKED, store)
    io.scratch.mkdir(parents=True)

    def inner(number):
        note_forward(10)
        return kept("inner", lambda: {"x": torch.tensor([float(number)])})

    def work(breaks):
        found = []
        for number in range(3):
            if breaks and number == 2:
                raise KeyboardInterrupt
            found.append(kept("stage", lambda number=number: inner(number))["x"])
        return {"x": torch.cat(found)}

    with pytest.raises(KeyboardInterrupt):
        io.part("rows-0", lambda: work(breaks=True))
    again = Io(ATTACKED, store)
    assert again.part("rows-0", lambda: work(breaks=False))["x"].tolist() == [0, 1, 2]
    assert again.meta()["passes"]["forward"] == 30


def test_an_attack_in_pieces_may_be_the_inner_one_of_a_loop(store, generator):
    io = Io(ATTACKED, store)
    io.scratch.mkdir(parents=True)
    x = torch.rand(8, 1, 3, 3, generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(4, 9, generator=generator))
    y = network(x).argmax(1)
    stages = AutoAttack(eps=0.3, attacks=(FGSM(eps=0.3), PGD(eps=0.3, steps=3)))
    learner = UniversalPerturbation(eps=0.1, passes=2, inner=stages)
    found = io.part("fit-0", lambda: learner.fit(network, x, y))["perturbation"]
    assert torch.equal(found, learner.fit(network, x, y)["perturbation"])


def test_a_part_is_the_same_made_or_read(store):
    """What was just made must join what an earlier process made, whatever device either worked on."""
    io = Io(ATTACKED, store)
    io.scratch.mkdir(parents=True)
    on = "cuda" if torch.cuda.is_available() else "cpu"
    made = io.part("rows-0", lambda: {"x": torch.ones(2, device=on, requires_grad=True)})["x"]
    read = io.part("rows-0", dict)["x"]
    assert torch.equal(made, read)
    assert (made.device, made.requires_grad) == (read.device, read.requires_grad) == (torch.device("cpu"), False)
