"""How a race is run: contenders take turns in one process, ratios are taken round by round, passes are counted."""

import contextlib
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

Contender = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Counting(nn.Module):
    """A network that counts the images passed through it, forward and backward, whoever passes them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forward_images = self.backward_images = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; a hook on them notices every backward pass."""
        self.forward_images += len(x)
        logits: Tensor = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(self._note)
        return logits

    def _note(self, slope: Tensor) -> None:
        self.backward_images += len(slope)


@dataclass(frozen=True)
class Race:
    """One question: who attacks these images of this network faster, at equal or better success?

    The first contender is ours. `goal(y)` are the labels that count as success, None for any but y.
    """

    name: str
    network: nn.Module
    x: Tensor
    y: Tensor
    contenders: dict[str, Contender]
    goal: Callable[[Tensor], Tensor] | None = None
    note: str = ""


@dataclass
class Outcome:
    """What one contender did in all rounds."""

    seconds: list[float] = field(default_factory=list)
    forward: int = 0
    backward: int = 0
    success: float = 0.0
    distance: float = float("nan")


def run(race: Race, rounds: int) -> dict[str, Outcome]:
    """Run a race: a warm-up that also counts and judges, then timed rounds, each starting with another contender."""
    outcomes = {name: judge(race, contender) for name, contender in race.contenders.items()}
    names = list(race.contenders)
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            began = time.perf_counter()
            race.contenders[name](race.network, race.x.clone(), race.y.clone())
            if race.x.is_cuda:
                torch.cuda.synchronize()
            outcomes[name].seconds.append(time.perf_counter() - began)
    return outcomes


def judge(race: Race, contender: Contender) -> Outcome:
    """Run a contender once and say what it cost, whom it fooled, and how far the fooled images moved (l2, median)."""
    counting = Counting(race.network).eval()
    adversarial = contender(counting, race.x.clone(), race.y.clone()).detach()
    with torch.no_grad():
        predicted = race.network(adversarial).argmax(1)
    fooled = predicted != race.y if race.goal is None else predicted == race.goal(race.y)
    moved = (adversarial - race.x).flatten(1).norm(dim=1)[fooled]
    distance = float(moved.median()) if len(moved) else float("nan")
    return Outcome(
        forward=counting.forward_images,
        backward=counting.backward_images,
        success=float(fooled.double().mean()),
        distance=distance,
    )


def ratio(ours: Outcome, theirs: Outcome) -> float:
    """Return the median over rounds of their time over ours: above 1 we are faster."""
    return statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds))


def peak_memory(race: Race, contender: Contender) -> float:
    """Return by how many MiB the process grows while a contender runs; to be called in a process of its own."""
    if race.x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender(race.network, race.x, race.y)
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with contextlib.suppress(OSError):  # Linux: forget the peak of what ran before
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    contender(race.network, race.x, race.y)
    return _peak() - before


def _peak() -> float:
    """Return the largest resident size so far, in MiB."""
    with contextlib.suppress(OSError):
        (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")]
        return float(line.split()[1]) / 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
