"""One readable training loop, which can be stopped anywhere and goes on as if it had not been."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pellucid.averaging import Average, refresh_statistics
from pellucid.data.augment import Augmentation
from pellucid.data.split import Split
from pellucid.errors import CheckpointError, DataError, GradientError, InputError, SpecError, TrainingError
from pellucid.guard import frozen
from pellucid.maths.passes import Passes, counted, note_backward
from pellucid.models.classifier import Classifier
from pellucid.optimisers import Optimiser
from pellucid.protocols import Attack, Context, Defence, Progress, silent
from pellucid.rng import derive, global_seed, permutation
from pellucid.spec import brief
from pellucid.stopping import Stop, metric_score
from pellucid.store import write_tensors
from pellucid.watching import FIGURES, UNDER_ATTACK, WATCHED, batch_figures, figures


@dataclass
class Run:
    """Where a training run stands: steps taken, what was logged, what it cost so far, whether and why it stopped.

    kept is the step of the network that is kept, and its score, where the best of the run is wanted.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    passes: Passes = field(default_factory=Passes)
    stopped: str | None = None
    kept: int | None = None
    score: float = -math.inf


Precision = Literal["float32", "bfloat16"]
Networks = Callable[[Any], nn.Module]
Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained besides its defence and optimiser; the defaults do nothing.

    augmentation  changes every batch, on the device
    average       the network that is kept is a mean of those along the way (EMA, SWA)
    precision     bfloat16: forward passes under autocast, losses and weights in float32
    accumulate    a batch is cut into so many, one after the other; the defence sees each as a batch of its own
    watch         the attack of the logged figures attacked_accuracy and attacked_training_accuracy
    stop          a rule that ends training, and says which network is kept
    keep          "last", or the logged figure by which the best network is kept
    unlabelled    images without labels, a batch of which goes with every step
    networks      gives the networks that tasks made, to defences that have a teacher
    channels_last and compiled change speed, and results by rounding only
    log           hears the figures as they are logged
    """

    augmentation: Augmentation | None = None
    average: Average | None = None
    precision: Precision = "float32"
    accumulate: int = 1
    watch: Attack | None = None
    stop: Stop | None = None
    keep: str | None = None
    unlabelled: Split | None = None
    networks: Networks | None = None
    channels_last: bool = False
    compiled: bool = False
    log: Log | None = None

    def scored(self, figures: dict[str, float]) -> float | None:
        """Return how good the network is by what is kept, None where the last one is."""
        if self.keep is not None:
            return None if self.keep == "last" else metric_score(self.keep, figures)
        return None if self.stop is None else self.stop.score(figures)


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
    recipe: Recipe = Recipe(),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress = silent,
) -> Run:
    """Train a network in place and return what was logged; goes on from `checkpoint` where there is one.

    Random numbers depend on (seed, step) alone, so a run that was killed ends with the same weights, bit for bit
    on CPU at the same thread count. Every `log_every` steps: the loss terms, the learning rate, the norm of the loss's
    gradient in the weights, and the figures of `watching` on the batch and on the first 512 validation images.
    Raises TrainingError, with the step and the term named, when a loss term or the gradient is not finite; the
    network, and `checkpoint` where one was given, is then the last good one.
    """
    loop = Loop(network, defence, optimiser, train, validation, steps, batch_size, seed, shuffle, log_every, recipe)
    return loop.run(checkpoint, checkpoint_seconds, progress)


class Loop:
    """The state of one training run: networks, optimiser, position, and the best network where it is wanted."""

    def __init__(
        self,
        network: Classifier,
        defence: Defence,
        optimiser: Optimiser,
        train: Split,
        validation: Split,
        steps: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        log_every: int,
        recipe: Recipe,
    ) -> None:
        self.network, self.optimiser, self.recipe = network, optimiser, recipe
        self.steps, self.batch_size, self.seed, self.shuffle = steps, batch_size, seed, shuffle
        self.log_every = log_every
        self.device = network.mean.device
        if not len(train) or (recipe.unlabelled is not None and not len(recipe.unlabelled)) or log_every < 1:
            raise InputError("training needs at least one image of each kind that it is given, and log_every from 1 on")
        if recipe.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.compiled:
            network.compile()
        self.body = TrainingStep(network, defence).train()
        self.train = train.to(self.device)
        self.unlabelled = None if recipe.unlabelled is None else recipe.unlabelled.to(self.device)
        watched = slice(WATCHED)
        self.watched = validation.images(watched).to(self.device), validation.labels[watched].to(self.device)
        self.weights = [p for p in network.parameters() if p.requires_grad]
        if not self.weights:
            raise InputError("the network has no weights to train: requires_grad is off everywhere")
        self.moves = optimiser.build(self.weights)
        self.averaged = None if recipe.average is None else recipe.average.build(network)
        self.best: dict[str, Tensor] = {}
        self.position = Run()

    def run(self, checkpoint: Path | None, checkpoint_seconds: float, progress: Progress) -> Run:
        """Train to the end, or until the rule stops it; the network is then the one to keep."""
        self._restore(checkpoint)
        run = self.position
        began, saved = time.monotonic() - run.seconds, time.monotonic()

        def save() -> None:
            run.seconds = time.monotonic() - began
            if checkpoint is not None:
                self._save(checkpoint)

        def stop_before_step(statistics: list[tuple[Tensor, Tensor]]) -> None:
            for buffer, was in statistics:  # a forward pass moves those of batch normalisation
                buffer.copy_(was)
            if self._sound():
                save()
            else:  # the step before made them so: go back to the last checkpoint
                self._restore(checkpoint)

        if run.step == 0:
            save()  # there is always a last good network
        while run.step < self.steps and run.stopped is None:
            try:
                loss = self._step(stop_before_step)
            except (SpecError, InputError, GradientError) as error:
                if run.step == 0 and checkpoint is not None:  # refused: nothing was trained
                    checkpoint.unlink(missing_ok=True)
                if run.step == 0 or self._sound():
                    raise
                step = run.step
                self._restore(checkpoint)
                raise _stopped(step, f"the network's outputs are no numbers ({error})") from None
            if time.monotonic() - saved > checkpoint_seconds and self._sound():
                save()  # only then: a step may leave float32, or what it can compute with, at a finite gradient
                saved = time.monotonic()
            last = run.history[-1] if run.history else {}
            progress(run.step, self.steps, loss=loss, accuracy=last.get("validation_accuracy", math.nan))
        values = {f"weight {k}": v.sum() for k, v in self.network.state_dict().items()}
        _check_finite(values, run.step, lambda: stop_before_step([]))
        with counted() as cost:
            self._finish()
        run.passes.forward += cost.forward
        run.seconds = time.monotonic() - began
        return run

    def _step(self, stop: Callable[[list[tuple[Tensor, Tensor]]], None]) -> float:
        """Take one step and log it where a log is due; return the loss."""
        run, step = self.position, self.position.step
        rows = batch_rows(len(self.train), self.batch_size, step, self.seed, self.shuffle).to(self.device)
        ctx = Context(progress=step / self.steps, step=step, seed=self.seed, positions=rows)
        if self.recipe.networks is not None:
            ctx = replace(ctx, network=self.recipe.networks)
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        x, y = self._images(self.train, rows, ctx), self.train.labels[rows]
        with counted() as cost, global_seed(derive(self.seed, "step", step), self.device):
            terms = self._gradient(x, y, ctx, lambda: stop(statistics))
        if step == 0:
            self._check_names(terms)
        norm = _gradient_norm(self.weights)
        _check_finite({"gradient of the loss": norm}, step, lambda: stop(statistics))
        self.optimiser.prepare(self.moves, ctx)
        self.moves.step()
        if self.averaged is not None and self.recipe.average is not None:
            self.recipe.average.update(self.averaged, self.network, ctx)
        run.step += 1
        if run.step % self.log_every == 0 or run.step == self.steps:
            with counted() as watching:
                row = self._log(x, y, {k: float(v) for k, v in terms.items()}, float(norm))
            cost.forward, cost.backward = cost.forward + watching.forward, cost.backward + watching.backward
            self._take_note(row)
        run.passes.forward += cost.forward
        run.passes.backward += cost.backward
        return sum(float(v) for v in terms.values())

    def _check_names(self, terms: dict[str, Tensor]) -> None:
        """Refuse, before anything is trained, to keep or stop by a figure that will not be logged."""
        watched = [*FIGURES, *(UNDER_ATTACK if self.recipe.watch else ())]
        if not len(self.watched[1]):
            watched = [name for name in watched if "training" in name]
        names = [*terms, "learning_rate", "gradient_norm", *watched]
        self.recipe.scored(dict.fromkeys(names, 0.0))

    def _gradient(self, x: Tensor, y: Tensor, ctx: Context, stop: Callable[[], None]) -> dict[str, Tensor]:
        """Leave the gradient of the loss in the weights and return the terms; a batch may come in several parts."""
        self.moves.zero_grad()
        total: dict[str, Tensor] = {}
        for part in torch.arange(len(x), device=self.device).tensor_split(min(self.recipe.accumulate, len(x))):
            places = None if ctx.positions is None else ctx.positions[part]
            unlabelled = self._unlabelled(ctx, part)
            now = replace(ctx, positions=places, unlabelled=unlabelled)
            share = len(part) / len(x)
            with _differentiated_once(self.recipe.compiled):
                with self._autocast():
                    terms = self.body(x[part], y[part], now)
                _check_finite(terms, ctx.step, stop)
                note_backward(len(part))
                torch.autograd.backward(torch.stack(list(terms.values())).sum() * share)
            for name, value in terms.items():
                total[name] = total.get(name, torch.zeros_like(value.detach())) + share * value.detach()
        return total

    def _images(self, split: Split, rows: Tensor, ctx: Context) -> Tensor:
        augmentation = self.recipe.augmentation
        x = split.images(rows, framed=getattr(augmentation, "crops", False))
        if augmentation is not None:
            x = augmentation(x, rng=ctx.stream.child("augmentation"))
        if x.shape[1:] != split.shape:
            raise DataError(
                f"{brief(augmentation)} makes images {tuple(x.shape[1:])} of those of {split.name}, {split.shape}: "
                "a random crop needs a data set that keeps a frame for it (caltech256 crop=224), and its size"
            )
        return x.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else x

    def _unlabelled(self, ctx: Context, part: Tensor) -> Tensor | None:
        if self.unlabelled is None:
            return None
        seed = derive(self.seed, "unlabelled")
        rows = batch_rows(len(self.unlabelled), self.batch_size, ctx.step, seed, True).to(self.device)
        share = part[part < len(rows)]
        return self._images(self.unlabelled, rows[share], replace(ctx, positions=rows[share]))

    def _autocast(self) -> torch.autocast:
        wanted = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=wanted)

    def _plain(self) -> contextlib.AbstractContextManager[Any]:
        """Measure without the compiled form, which is differentiated only once."""
        return torch.compiler.set_stance("force_eager") if self.recipe.compiled else contextlib.nullcontext()

    def _measured(self) -> Classifier:
        """Return the network that would be kept now; of an average that needs new statistics, the one in training."""
        if self.averaged is None or self.recipe.average is None or self.recipe.average.needs_statistics:
            return self.network
        return cast(Classifier, self.averaged.module)

    def _log(self, x: Tensor, y: Tensor, terms: dict[str, float], norm: float) -> dict[str, float]:
        network, watch = self._measured(), self.recipe.watch
        with self._plain():
            size = -(-len(x) // self.recipe.accumulate)  # no more at a time than in training
            batch = batch_figures(network, x, y, watch, self.seed, size)
            found = figures(network, *self.watched, watch, self.seed, size)
        pace = {"learning_rate": float(self.moves.param_groups[0]["lr"]), "gradient_norm": norm}
        return {"step": self.position.step, **terms, **pace, **batch, **found}

    def _take_note(self, row: dict[str, float]) -> None:
        """Keep the row, the network if it is the best so far, and the reason to stop if there is one."""
        run = self.position
        run.history.append(row)
        if self.recipe.log is not None:
            self.recipe.log(run.step, row)
        score = self.recipe.scored(row)
        if score is not None and score > run.score:
            run.kept, run.score = run.step, score
            self.best = {k: v.detach().clone() for k, v in self._measured().state_dict().items()}
        if self.recipe.stop is not None:
            run.stopped = self.recipe.stop.reason(run.history)

    def _finish(self) -> None:
        if self.best:
            self.network.load_state_dict(self.best)
        elif self.averaged is not None:
            self.network.load_state_dict(self.averaged.module.state_dict())
            if self.recipe.average is not None and self.recipe.average.needs_statistics:
                with self._plain(), global_seed(derive(self.seed, "statistics"), self.device):  # for dropout
                    refresh_statistics(self.network, self._every_image())
        if self.recipe.compiled:
            self.network._compiled_call_impl = None  # whoever gets it may want second derivatives
        self.network.eval()

    def _every_image(self) -> Iterator[Tensor]:
        batches = max(1, len(self.train) // self.batch_size)  # none smaller than in training
        yield from (self.train.images(rows) for rows in torch.arange(len(self.train)).tensor_split(batches))

    def _sound(self) -> bool:
        """Say whether the network's weights, and its logits of a few training images, are finite."""
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            return False
        with self._plain(), frozen(self.network), torch.no_grad():
            logits = self.network(self.train.images(torch.arange(min(16, len(self.train)), device=self.device)))
        return bool(torch.isfinite(logits).all())

    def _save(self, path: Path) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for index, state in self.moves.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
        if self.averaged is not None:
            tensors |= {f"average.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        write_tensors(path, tensors, {"run": json.dumps(asdict(self.position))})

    def _restore(self, path: Path | None) -> None:
        """Go on where the checkpoint stands; without one, where we are."""
        if path is None or not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                kept: dict[str, Any] = json.loads(file.metadata()["run"])
                tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is corrupt or truncated ({error}); delete it to train from the start"
            ) from None
        states: dict[int, dict[str, Tensor]] = {}
        try:
            position = Run(**kept | {"passes": Passes(**kept["passes"])})
            self.network.load_state_dict(_part(tensors, "network"))
            if self.averaged is not None:
                self.averaged.load_state_dict(_part(tensors, "average"))
            for key, value in _part(tensors, "optimiser").items():
                index, name = key.split(".", 1)
                states.setdefault(int(index), {})[name] = value
            self.moves.load_state_dict({"state": states, "param_groups": self.moves.state_dict()["param_groups"]})
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise CheckpointError(f"{path} is not of this training; delete it to train from the start") from None
        self.best = {k: v.to(self.device) for k, v in _part(tensors, "best").items()}
        self.position.__dict__.update(vars(position))


@contextlib.contextmanager
def _differentiated_once(compiled: bool) -> Iterator[None]:
    """Say it in a sentence where a compiled network is differentiated again, which torch cannot do."""
    try:
        yield
    except RuntimeError as error:
        if compiled and any(words in str(error) for words in ("double backward", "donated buffer")):
            raise SpecError(
                "torch.compile cannot differentiate twice, as this defence needs: train without compiled"
            ) from None
        raise
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise SpecError(
                "batch normalisation needs two images or more at a time: raise batch_size, or lower accumulate"
            ) from None
        raise


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _gradient_norm(weights: list[nn.Parameter]) -> Tensor:
    norms = [p.grad.detach().flatten().norm() for p in weights if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def _check_finite(terms: dict[str, Tensor], step: int, stop: Callable[[], None]) -> None:
    values = torch.stack([v.detach() for v in terms.values()])
    if not bool(torch.isfinite(values).all()):
        name, value = next((k, float(v.detach())) for k, v in terms.items() if not bool(torch.isfinite(v)))
        stop()
        raise _stopped(step, f"{name} is {value}")


def _stopped(step: int, why: str) -> TrainingError:
    return TrainingError(
        f"training stopped at step {step}: {why}; the last good network is kept; "
        "a lower learning rate or weight, or another seed, may help"
    )
