"""One readable training loop, which can be stopped anywhere and goes on as if it had not been."""

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pellucid.data.split import Split
from pellucid.errors import CheckpointError, TrainingError
from pellucid.guard import frozen
from pellucid.maths.losses import cross_entropy
from pellucid.maths.passes import Passes, counted, gradient, note_backward
from pellucid.models.classifier import Classifier
from pellucid.optimisers import Optimiser
from pellucid.protocols import Context, Defence, Progress, silent
from pellucid.rng import derive, global_seed, permutation
from pellucid.store import write_tensors


@dataclass
class Run:
    """Where a training run stands: steps taken, what was logged, what it cost so far."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    passes: Passes = field(default_factory=Passes)


class TrainingStep(nn.Module):
    """The loss terms of one batch as a module, so that DistributedDataParallel can wrap the step, not the network.

    Around the network, a loss that goes through `features` or `classify` would silently not be averaged.
    """

    def __init__(self, network: Classifier, defence: Defence) -> None:
        super().__init__()
        self.network, self.defence = network, defence

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Return the named, weighted loss terms."""
        return self.defence(self.network, x, y, ctx)


def batch_rows(n: int, batch_size: int, step: int, seed: int, shuffle: bool) -> Tensor:
    """Return the training-set rows of a step: a new order every epoch (or the given one), the rest of n dropped."""
    size = min(batch_size, n)
    epoch, batch = divmod(step, n // size)
    order = _order(n, seed, epoch) if shuffle else torch.arange(n)
    return order[batch * size : (batch + 1) * size]


@functools.lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return permutation(n, derive(seed, "order", epoch))


def fit(
    network: Classifier,
    defence: Defence,
    optimiser: Optimiser,
    train: Split,
    validation: Split,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    log_every: int = 100,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> Run:
    """Train a network in place and return what was logged; goes on from `checkpoint` where there is one.

    Random numbers depend on (seed, step) alone, so a run that was killed ends with the same weights, bit for bit
    on CPU at the same thread count. Every `log_every` steps: the loss terms, and accuracy, cross-entropy and mean
    squared input-gradient norm on the first 512 validation images.
    Raises TrainingError, with the step and the term named, when a loss term or the gradient is not finite; the
    network, and `checkpoint` where one was given, is then the last good one.
    """
    device = network.mean.device
    train, watched = train.to(device), (validation.images(slice(512)).to(device), validation.labels[:512].to(device))
    body = TrainingStep(network, defence).train()
    weights = [p for p in network.parameters() if p.requires_grad]
    moves = optimiser.build(weights)
    run = _restore(network, moves, checkpoint) or Run()
    began, saved = time.monotonic() - run.seconds, time.monotonic()
    statistics: list[tuple[Tensor, Tensor]] = []

    def save() -> None:
        run.seconds = time.monotonic() - began
        if checkpoint is not None:
            _save(checkpoint, network, moves, run)

    def finite() -> bool:
        return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())

    def stop_before_step() -> None:
        for buffer, was in statistics:  # a forward pass moves those of batch normalisation
            buffer.copy_(was)
        if finite():
            save()
        else:  # the step before made them so: go back to the last checkpoint
            _restore(network, moves, checkpoint)

    if run.step == 0:
        save()  # there is always a last good network
    for step in range(run.step, steps):
        rows = batch_rows(len(train), batch_size, step, seed, shuffle).to(device)
        ctx = Context(progress=step / steps, step=step, seed=seed, positions=rows)
        statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
        with counted() as cost, global_seed(derive(seed, "step", step), device):
            terms = body(train.images(rows), train.labels[rows], ctx)
            _check_finite(terms, step, stop_before_step)
            moves.zero_grad()
            note_backward(len(rows))
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
        _check_finite({"gradient of the loss": _gradient_norm(weights)}, step, stop_before_step)
        optimiser.prepare(moves, step)
        moves.step()
        run.step += 1
        if run.step % log_every == 0 or run.step == steps:
            with counted() as watching:
                figures = _watch(network, *watched)
            cost.forward, cost.backward = cost.forward + watching.forward, cost.backward + watching.backward
            run.history.append({"step": run.step, **{k: float(v.detach()) for k, v in terms.items()}, **figures})
        run.passes.forward += cost.forward
        run.passes.backward += cost.backward
        if time.monotonic() - saved > checkpoint_seconds and finite():  # a step may leave float32 at a finite gradient
            save()
            saved = time.monotonic()
        last = run.history[-1] if run.history else {}
        loss = sum(float(v.detach()) for v in terms.values())
        progress(run.step, steps, loss=loss, accuracy=last.get("validation_accuracy", math.nan))
    _check_finite({f"weight {k}": v.sum() for k, v in network.state_dict().items()}, steps, stop_before_step)
    run.seconds = time.monotonic() - began
    network.eval()
    return run


def _gradient_norm(weights: list[nn.Parameter]) -> Tensor:
    norms = [p.grad.detach().flatten().norm() for p in weights if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def _check_finite(terms: dict[str, Tensor], step: int, stop: Callable[[], None]) -> None:
    values = torch.stack([v.detach() for v in terms.values()])
    if not bool(torch.isfinite(values).all()):
        name, value = next((k, float(v.detach())) for k, v in terms.items() if not bool(torch.isfinite(v)))
        stop()
        raise TrainingError(
            f"training stopped at step {step}: {name} is {value}; the last good network is kept; "
            "a lower learning rate or weight, or another seed, may help"
        )


def _watch(network: Classifier, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return accuracy, mean cross-entropy and mean squared norm of its input gradient, in eval mode."""
    if not len(y):
        return {}
    with frozen(network):
        x = x.clone().requires_grad_(True)
        logits = network(x)
        losses = cross_entropy(logits, y)
        squares = gradient(losses, x).flatten(1).square().sum(1)
    return {
        "validation_accuracy": float((logits.detach().argmax(1) == y).float().mean()),
        "validation_cross_entropy": float(losses.detach().mean()),
        "validation_squared_gradient": float(squares.mean()),
    }


def _save(path: Path, network: Classifier, moves: torch.optim.Optimizer, run: Run) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    for index, state in moves.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    write_tensors(path, tensors, {"run": json.dumps(asdict(run))})


def _restore(network: Classifier, moves: torch.optim.Optimizer, path: Path | None) -> Run | None:
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            kept: dict[str, Any] = json.loads(file.metadata()["run"])
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is corrupt or truncated ({error}); delete it to train from the start") from None
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            states.setdefault(int(index), {})[name] = value
    moves.load_state_dict({"state": states, "param_groups": moves.state_dict()["param_groups"]})
    return Run(kept["step"], kept["history"], kept["seconds"], Passes(**kept["passes"]))
