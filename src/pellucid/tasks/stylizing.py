"""The task that fits a stylizer on one's own images and paintings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor

from pellucid.data.split import Split
from pellucid.errors import TrainingError
from pellucid.maths.passes import note_backward, note_forward
from pellucid.protocols import DataField
from pellucid.rng import derive
from pellucid.spec import Count, NonNegative, Positive, Whole, name_of, register
from pellucid.store import write_json, write_tensors
from pellucid.tasks.io import Io
from pellucid.tasks.training import folder_name
from pellucid.transforms.autoencoder import CompactStylizer, note
from pellucid.transforms.style_fit import (
    Pupil,
    State,
    blank,
    pieces,
    recoloured,
    restore,
    saved,
    style_losses,
    weights_in,
)
from pellucid.transforms.stylize import FITTED, StylesField

_PIECE = 100  # training steps that are remembered together
_LEAST = 1 / 3  # share of a painting's side that a piece of it has at least
Size = Annotated[Count, Ge(16), Le(1024), MultipleOf(4)]


@register("task", "fit_stylizer")
@dataclass(frozen=True, kw_only=True)
class FitStylizer:
    """Fit a compact stylizer on one's own images and paintings, for who has no VGG-19.

    The encoder (see `CompactStylizer`) first learns, in encoder_steps, to tell the classes of the content images, where
    they have any, and to rebuild images; then the decoder learns, in steps, to paint content in the style of paintings
    by the losses of Huang & Belongie and Gram matrices (see `style_losses`), the encoder left as it is. Content and
    paintings are their training parts; those of the other parts are held out. Pieces of content and paintings have size
    pixels, those of a painting are taken from a third to the whole of its side; they are mirrored at random, paintings
    recoloured too (see `recoloured`). Rates fall to zero as half a cosine. The result is stylizer.safetensors, which
    says in its metadata what it is (`Stylize` reads it), and fitted.json with the losses along the way. Seeded and
    resumable to the bit, every 100 steps.
    Source: Huang & Belongie 2017, section 6; the encoder is ours.
    """

    makes_stylizer: ClassVar[bool] = True

    content: DataField
    styles: StylesField
    steps: Count = 2000
    encoder_steps: Whole = 400
    batch_size: Count = 8
    encoder_batch_size: Count = 32
    size: Size = 64  # a multiple of 4
    width: Count = 16
    levels: Annotated[Count, Le(3)] = 3
    style_weight: NonNegative = 3.0
    gram_weight: NonNegative = 3.0
    lr: Positive = 1e-3
    encoder_lr: Positive = 2e-3
    seed: Whole = 0

    @property
    def called(self) -> str:
        """Name the stylizer for people: what it is, what it was fitted on and for how long."""
        steps = f"{self.encoder_steps} + {self.steps} steps"
        return f"AdaIN, compact autoencoder fitted on {named(self.content)} and {named(self.styles)}, {steps}"

    def title(self) -> str:
        """Name the work for people."""
        return f"fit a stylizer on {named(self.content)} and {named(self.styles)}"

    def run(self, io: Io) -> list[str]:
        """Fit, from the last hundred steps where there are some."""
        content, styles = io.data(self.content, "train"), io.data(self.styles, "train", "styles")
        state, history = self._phase(io, "encoder", self.encoder_steps, partial(self._encode, io, content), {})
        network = self._pupil(content, state).finished()
        start = {f"weights.{name}": value.detach() for name, value in network.state_dict().items()}
        state, more = self._phase(io, "decoder", self.steps, partial(self._paint, io, content, styles), start)
        network.load_state_dict(weights_in(state))
        about = {"called": self.called, "width": self.width, "levels": self.levels}
        write_tensors(io.scratch / FITTED, dict(network.state_dict()), note(about))
        write_json(io.scratch / "fitted.json", about | {"history": history + more})
        return [FITTED, "fitted.json"]

    def _phase(
        self, io: Io, name: str, steps: int, work: Callable[[State, range], State], state: State
    ) -> tuple[State, list[dict[str, Any]]]:
        """Return the state after all steps of a phase, and the losses of each hundred."""
        history, before = [], self.encoder_steps if name == "decoder" else 0
        for start in range(0, steps, _PIECE):
            piece = range(start, min(steps, start + _PIECE))
            state = io.part(f"{name}-{start:07d}", partial(work, state, piece))
            losses = {k.removeprefix("loss."): float(v) for k, v in state.items() if k.startswith("loss.")}
            history.append({"phase": name, "step": piece.stop, **losses})
            io.progress(before + piece.stop, self.encoder_steps + self.steps, **losses)
        return state, history

    def _pupil(self, content: Split, state: State) -> Pupil:
        pupil = blank(self.width, self.levels, len(content.classes), derive(self.seed, "weights"))
        if state:
            pupil.load_state_dict(weights_in(state))
        return pupil

    def _encode(self, io: Io, content: Split, state: State, steps: range) -> State:
        pupil = self._pupil(content, {}).to(io.device)
        optimiser = torch.optim.Adam(pupil.parameters(), lr=self.encoder_lr)
        if state:
            restore(pupil, optimiser, state)
        total = 0.0
        for step in steps:
            x, rows = self._content(io, content, self.encoder_batch_size, "encoder", step)
            labels = content.labels[rows].to(io.device) if content.labelled else None
            loss = pupil.loss(x, labels)
            total += self._move(optimiser, loss, self.encoder_lr, step / self.encoder_steps, len(x))
        return saved(pupil, optimiser) | {"loss.encoder": torch.tensor(total / len(steps))}

    def _paint(self, io: Io, content: Split, styles: Split, state: State, steps: range) -> State:
        network = CompactStylizer(self.width, self.levels).to(io.device)
        network.encoder.requires_grad_(False)
        optimiser = torch.optim.Adam(network.decoder.parameters(), lr=self.lr)
        restore(network, optimiser, state)
        totals = torch.zeros(3)
        for step in steps:
            x, _ = self._content(io, content, self.batch_size, "decoder", step)
            draw = torch.Generator().manual_seed(derive(self.seed, "styles", step))
            chosen = styles.images(torch.randint(len(styles), (len(x),), generator=draw)).to(io.device)
            style = recoloured(pieces(chosen.expand(-1, 3, -1, -1), self.size, _LEAST, draw), draw)
            losses = style_losses(network, x, style)
            total = losses.total(self.style_weight, self.gram_weight)
            self._move(optimiser, total, self.lr, step / self.steps, len(x))
            totals += torch.stack([losses.content, losses.style, losses.gram]).detach().cpu()
        named_losses = zip(("loss.content", "loss.style", "loss.gram"), totals / len(steps))
        return saved(network, optimiser) | dict(named_losses)

    def _content(self, io: Io, content: Split, size: int, phase: str, step: int) -> tuple[Tensor, Tensor]:
        """Return a batch of RGB pieces of content, and the rows they are from."""
        draw = torch.Generator().manual_seed(derive(self.seed, phase, step))
        rows = torch.randint(len(content), (size,), generator=draw)
        images = content.images(rows).to(io.device).expand(-1, 3, -1, -1)
        return pieces(images, self.size, min(1.0, self.size / min(images.shape[-2:])), draw), rows

    def _move(self, optimiser: torch.optim.Optimizer, loss: Tensor, lr: float, share: float, images: int) -> float:
        """Take one step at this share of the phase, and return the loss; TrainingError if that is not finite."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"fitting the stylizer broke down (loss {value}): lower lr, now {lr:g}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        note_forward(images)
        note_backward(images)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * share)) / 2
        optimiser.step()
        return value


def named(data: Any) -> str:
    """Name a data set for people: its folder, where it has one."""
    return folder_name(data.path) if getattr(data, "path", "") else name_of(data)
