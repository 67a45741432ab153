"""Sums over many evaluations of each image (a path, noise), a bounded number of them at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""evaluate(rows, steps) -> one value (of any shape) per pair of an image's row and a step, both (B,)"""

_NO_MEMORY = ("can't allocate memory", "not enough memory")  # what the allocator of the CPU says
_NUMBERS = 1 << 20  # in flight: 6 images of 3x224x224
_IMAGES = 128  # of small ones, where launching them takes time
_IMAGES_ON_CPU = 64  # twice as many are no faster there (32: 6 % slower on a Small network), and want twice the memory


@dataclass
class _Limit:
    images: int


def chunk_for(x: Tensor, chunk: int | None = None) -> int:
    """Return how many images to pass at a time: what the caller says, or what suits their size.

    >>> chunk_for(torch.empty(1, 3, 32, 32)), chunk_for(torch.empty(1, 3, 224, 224))
    (64, 6)
    """
    most = _IMAGES_ON_CPU if x.device.type == "cpu" else _IMAGES
    return chunk or max(1, min(most, _NUMBERS // max(1, x[0].numel() if len(x) else 1)))


def summed(evaluate: Evaluate, images: int, steps: int, chunk: int, device: torch.device) -> Tensor:
    """Return sum_s evaluate(n, s) for every image n, (N, ...), with at most `chunk` pairs evaluated at a time.

    Where memory runs out the chunk is halved, for good, and the piece tried again; one pair alone raises. The
    result depends on the chunk by rounding only. Half precision is summed, and returned, in single.

    >>> summed(lambda rows, steps: (10 * rows + steps).float(), 2, 3, 4, torch.device("cpu"))
    tensor([ 3., 33.])
    """
    rows, every = torch.arange(images, device=device), torch.arange(steps, device=device)
    return _summed(evaluate, rows, every, _Limit(chunk))


def _summed(evaluate: Evaluate, rows: Tensor, steps: Tensor, limit: _Limit) -> Tensor:
    if len(rows) * len(steps) > limit.images:
        if len(rows) > 1:
            size = max(1, limit.images // len(steps))
            return torch.cat([_summed(evaluate, part, steps, limit) for part in torch.split(rows, size)])
        parts = [_summed(evaluate, rows, part, limit) for part in steps.tensor_split(-(-len(steps) // limit.images))]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
    try:
        values = evaluate(rows.repeat_interleave(len(steps)), steps.repeat(len(rows)))
        wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
        return values.view(len(rows), len(steps), *values.shape[1:]).sum(1, dtype=wide)
    except RuntimeError as error:
        if not ran_out_of_memory(error) or limit.images == 1:
            raise
    limit.images = max(1, min(limit.images, len(rows) * len(steps)) // 2)
    return _summed(evaluate, rows, steps, limit)


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error is that of an allocator, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _NO_MEMORY)
