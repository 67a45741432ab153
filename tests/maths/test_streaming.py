"""Sums over many evaluations: the same whatever the chunk, and when memory runs out."""

import pytest
import torch
from torch import Tensor

from pellucid.maths.streaming import chunk_for, summed

CPU = torch.device("cpu")


def values(rows: Tensor, steps: Tensor) -> Tensor:
    return torch.stack([(rows + 1) * (steps + 2), rows * 100 + steps**2], 1).double()


def expected(images: int, steps: int) -> Tensor:
    return torch.stack(
        [sum(values(torch.tensor([n]), torch.tensor([s]))[0] for s in range(steps)) for n in range(images)]
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 12, 35, 1000])
def test_the_sum_does_not_depend_on_the_chunk(chunk):
    seen = []

    def watched(rows: Tensor, steps: Tensor) -> Tensor:
        seen.append(len(rows))
        return values(rows, steps)

    assert torch.equal(summed(watched, 5, 7, chunk, CPU), expected(5, 7))
    assert max(seen) <= chunk
    assert sum(seen) == 35, "every pair is evaluated once"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried ..."),
    ],
)
@pytest.mark.parametrize("room", [1, 4, 9])
def test_where_memory_runs_out_the_chunk_is_halved_for_good(error, room):
    asked = []

    def cramped(rows: Tensor, steps: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > room:
            raise error
        return values(rows, steps)

    assert torch.equal(summed(cramped, 6, 8, 32, CPU), expected(6, 8))
    failed = [size for size in asked if size > room]
    assert len(failed) <= 6, "what was too large is not tried again and again"
    assert failed == sorted(failed, reverse=True)


def test_other_errors_and_one_pair_alone_raise():
    def broken(rows: Tensor, steps: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        summed(broken, 2, 2, 4, CPU)

    def full(rows: Tensor, steps: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room for one")

    with pytest.raises(torch.OutOfMemoryError, match="no room for one"):
        summed(full, 2, 2, 4, CPU)


def test_no_images_give_no_sums():
    assert summed(values, 0, 3, 4, CPU).shape == (0, 2)


def test_chunks_suit_the_size_of_an_image():
    assert chunk_for(torch.empty(2, 3, 32, 32)) == chunk_for(torch.empty(2, 1, 8, 8)) == 128
    assert chunk_for(torch.empty(2, 3, 224, 224)) == 6
    assert chunk_for(torch.empty(2, 3, 4000, 4000)) == 1
    assert chunk_for(torch.empty(2, 3, 32, 32), 5) == 5
    assert chunk_for(torch.empty(0, 3, 32, 32)) >= 1
