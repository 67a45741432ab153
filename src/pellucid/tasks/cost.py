"""What a task may cost, from trying a little of it: time here, passes through the network, hours of a GPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pellucid.maths.passes import counted

GPU_FLOPS = (
    1e13  # a second that small networks reach on a data-centre GPU in float32: assumed, a few tenths of its peak
)
GPU_LAUNCH = 1e-5  # seconds that every operation takes at least on it, however small


@dataclass(frozen=True)
class Cost:
    """Seconds on this machine, images passed forward and backward, arithmetic, and operations launched."""

    seconds: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    flops: float = 0.0
    launches: float = 0.0

    def times(self, factor: float, launches: float | None = None) -> "Cost":
        """Return the cost of `factor` times the work; larger batches need fewer `launches` for it."""
        return Cost(
            self.seconds * factor,
            self.forward * factor,
            self.backward * factor,
            self.flops * factor,
            self.launches * (factor if launches is None else launches),
        )

    def minus(self, other: "Cost") -> "Cost":
        """Return what is dearer than in another cost."""
        return Cost(*(mine - theirs for mine, theirs in zip(self._numbers(), other._numbers(), strict=True)))

    def gpu_hours(self) -> float:
        """Return the hours that one GPU may take: arithmetic at `GPU_FLOPS`, or launching at `GPU_LAUNCH` if longer.

        >>> Cost(flops=3.6e16).gpu_hours(), round(Cost(launches=3.6e8).gpu_hours(), 6)
        (1.0, 1.0)
        """
        return max(self.flops / GPU_FLOPS, self.launches * GPU_LAUNCH) / 3600

    def _numbers(self) -> tuple[float, ...]:
        return (self.seconds, self.forward, self.backward, self.flops, self.launches)


class Meter(TorchDispatchMode):
    """Counts what is done inside a `with` block; `cost()` says how much it is so far.

    (torch's FlopCounterMode follows modules by hooks that refuse gradients in leaves, which is what attacks take.)
    """

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self.launches = 0, 0

    def __enter__(self) -> "Meter":
        """Start counting."""
        self._counting = counted()
        self._passes, self._began = self._counting.__enter__(), time.monotonic()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *why: Any) -> None:
        """Stop counting."""
        super().__exit__(*why)  # type: ignore[no-untyped-call]
        self._counting.__exit__(*why)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        made = func(*args, **(kwargs or {}))
        self.launches += 1
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made)
        return made

    def cost(self) -> Cost:
        """Return what was counted; the time is that under the meter, which slows everything down."""
        seconds = time.monotonic() - self._began
        return Cost(seconds, self._passes.forward, self._passes.backward, self.flops, self.launches)


def tried(work: Callable[[], object]) -> Cost:
    """Return the cost of some work: counted the first time, timed the second."""
    with Meter() as meter:
        work()
    counts, began = meter.cost(), time.monotonic()
    work()
    return Cost(time.monotonic() - began, counts.forward, counts.backward, counts.flops, counts.launches)
