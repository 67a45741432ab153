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
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
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
    assert failed == [size for size in (32, 16, 8, 4, 2) if size > room], "each size once: what failed is not retried"
    assert sum(size for size in asked if size <= room) == 48, "every pair is evaluated once"


def test_a_chunk_larger_than_the_work_is_halved_from_the_size_of_the_work():
    asked = []

    def cramped(rows: Tensor, steps: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return values(rows, steps)

    assert torch.equal(summed(cramped, 2, 3, 1000, CPU), expected(2, 3))
    assert asked == [6, 3, 3]


def test_other_errors_and_one_pair_alone_raise():
    def broken(rows: Tensor, steps: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        summed(broken, 2, 2, 4, CPU)

    def full(rows: Tensor, steps: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room for one")

    with pytest.raises(torch.OutOfMemoryError, match="no room for one"):
        summed(full, 2, 2, 4, CPU)
    with pytest.raises(torch.OutOfMemoryError, match="no room for one"):
        summed(full, 1, 1, 4, CPU)


def test_other_errors_are_not_tried_again():
    for error in (RuntimeError("CUDA error: device-side assert triggered"), ValueError("not enough memory")):
        asked = []

        def broken(rows: Tensor, steps: Tensor, error: Exception = error, asked: list[int] = asked) -> Tensor:
            asked.append(len(rows))
            raise error

        with pytest.raises(type(error), match=str(error)):
            summed(broken, 3, 4, 8, CPU)
        assert asked == [8]


@pytest.mark.parametrize("chunk", [1, 2, 5, 30])
def test_sums_are_differentiable_across_chunks(chunk):
    x = torch.arange(3.0, dtype=torch.float64, requires_grad=True)
    out = summed(lambda rows, steps: steps * x[rows].square(), 3, 4, chunk, CPU)
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [0.0, 12.0, 24.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_half_precision_is_summed_in_single(dtype, chunk):
    out = summed(lambda rows, steps: torch.full((len(rows),), 1000.0, dtype=dtype), 2, 300, chunk, CPU)
    assert out.tolist() == [300_000.0, 300_000.0]  # above float16's 65,504, and not of bfloat16's 8 bits
    assert out.dtype == torch.float32


def test_no_images_give_no_sums():
    assert summed(values, 0, 3, 4, CPU).shape == (0, 2)


def test_the_steps_of_an_image_are_passed_in_equal_parts():
    sizes: list[int] = []

    def noted(rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        sizes.append(len(steps))
        return steps.double()

    assert summed(noted, 1, 100, 64, CPU).tolist() == [4950.0]
    assert sizes == [50, 50]


def test_chunks_suit_the_size_of_an_image():
    assert chunk_for(torch.empty(2, 3, 32, 32)) == chunk_for(torch.empty(2, 1, 8, 8)) == 64
    assert chunk_for(torch.empty(2, 3, 32, 32, device="meta")) == 128
    assert chunk_for(torch.empty(2, 3, 224, 224)) == 6
    assert chunk_for(torch.empty(2, 3, 4000, 4000)) == 1
    assert chunk_for(torch.empty(2, 3, 32, 32), 5) == 5
    assert chunk_for(torch.empty(0, 3, 32, 32)) >= 1
