"""What methods say beside their result, and work that goes on where it stopped."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pellucid.maths.notes import note, noted
from pellucid.maths.resume import keeping, kept, within


def test_the_innermost_listener_alone_hears():
    note("nobody", torch.zeros(1))  # nobody listens
    with noted() as outer:
        with noted() as inner:
            note("flag", torch.tensor([True, False]))
        note("other", torch.tensor([1]))
    assert inner["flag"].tolist() == [True, False]
    assert list(outer) == ["other"]


def test_work_without_a_memory_is_done():
    assert kept("piece", lambda: {"x": torch.ones(1)})["x"].tolist() == [1]


def test_remembered_work_is_not_done_again_and_pieces_have_names_of_their_own():
    memory: dict[str, dict[str, Tensor]] = {}
    made: list[str] = []

    def recall(name: str, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if name not in memory:
            made.append(name)
            memory[name] = work()
        return memory[name]

    def work(breaks: bool) -> dict[str, Tensor]:
        total = torch.zeros(1)
        for run in ("a", "b"):
            with within(run):
                total = total + kept("first", lambda: {"x": torch.ones(1)})["x"]
                if breaks and run == "b":
                    raise RuntimeError("killed")
                total = total + kept("second", lambda: kept("inner", lambda: {"x": torch.ones(1)}))["x"]
        return {"x": total}

    with keeping(recall), pytest.raises(RuntimeError):
        work(breaks=True)
    assert made == ["a.first", "a.second", "a.second.inner", "b.first"]
    made.clear()
    with keeping(recall):
        assert work(breaks=False)["x"].tolist() == [4]
    assert made == ["b.second", "b.second.inner"]
