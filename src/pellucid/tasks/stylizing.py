"""The tasks about style: fit a stylizer, paint images, and measure what became of texture and contours."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Le, MultipleOf
from pydantic import BeforeValidator
from torch import Tensor

from pellucid.data.split import Split
from pellucid.errors import SpecError, TrainingError
from pellucid.maths.edges import luma
from pellucid.maths.passes import note_backward, note_forward
from pellucid.metrics import bootstrap_mean
from pellucid.metrics.style import (
    Features,
    NamedLayers,
    RandomTextures,
    colour_matched,
    edge_correlation,
    gram_distance,
)
from pellucid.protocols import DataField, Part, TransformField
from pellucid.rng import Stream, derive
from pellucid.spec import NOT_HASHED, Count, NonNegative, Positive, Whole, name_of, read_sequence, register
from pellucid.store import write_json, write_tensors
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import count_images, in_chunks
from pellucid.tasks.parquet import write_columns
from pellucid.tasks.training import NetworkField, folder_name, network_name
from pellucid.transforms.autoencoder import CompactStylizer, note
from pellucid.transforms.style_fit import State, blank, pieces, recoloured, restore, saved, style_losses
from pellucid.transforms.stylize import FITTED, StylesField, Stylize
from pellucid.transforms.vgg import VGGFeatures
from pellucid.weights import content_digest, described_file, read_tensors

_PIECE = 100  # training steps that are remembered together
_COMPARED = ("stylised", "moments", "covariance")
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
    style_weight: NonNegative = 30.0
    gram_weight: NonNegative = 30.0
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
        content, styles = io.data(self.content, "train"), self._paintings(io)
        state, history = self._phase(io, "encoder", self.encoder_steps, partial(self._encode, io, content), {})
        network = self._pupil(content, state).finished()
        start = {f"weights.{name}": value.detach() for name, value in network.state_dict().items()}
        state, more = self._phase(io, "decoder", self.steps, partial(self._paint, io, content, styles), start)
        network.load_state_dict({k.removeprefix("weights."): v for k, v in state.items() if k.startswith("weights.")})
        about = {"called": self.called, "width": self.width, "levels": self.levels}
        write_tensors(io.scratch / FITTED, dict(network.state_dict()), note(about))
        write_json(io.scratch / "fitted.json", about | {"history": history + more})
        return [FITTED, "fitted.json"]

    def _paintings(self, io: Io) -> Tensor:
        split = io.data(self.styles, "train", "styles")
        images = split.images().to(io.device)
        return images.expand(-1, 3, -1, -1)

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

    def _pupil(self, content: Split, state: State) -> Any:
        pupil = blank(self.width, self.levels, len(content.classes), derive(self.seed, "weights"))
        if state:
            restore(pupil, torch.optim.Adam(pupil.parameters()), state)
        return pupil

    def _encode(self, io: Io, content: Split, state: State, steps: range) -> State:
        pupil = blank(self.width, self.levels, len(content.classes), derive(self.seed, "weights")).to(io.device)
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

    def _paint(self, io: Io, content: Split, styles: Tensor, state: State, steps: range) -> State:
        network = CompactStylizer(self.width, self.levels).to(io.device)
        network.encoder.requires_grad_(False)
        optimiser = torch.optim.Adam(network.decoder.parameters(), lr=self.lr)
        restore(network, optimiser, state)
        totals = torch.zeros(3)
        for step in steps:
            x, _ = self._content(io, content, self.batch_size, "decoder", step)
            draw = torch.Generator().manual_seed(derive(self.seed, "styles", step))
            chosen = torch.randint(len(styles), (len(x),), generator=draw).to(styles.device)
            style = recoloured(pieces(styles[chosen], self.size, _LEAST, draw), draw)
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


@dataclass(frozen=True, kw_only=True)
class _Painting:
    """What these tasks share: a stylizer and images that it paints."""

    stylize: TransformField
    data: DataField
    part: Part = "test"
    images: Count | None = None
    chunk: Count = 100
    seed: Whole = 0

    def check(self) -> None:
        """Refuse transformations that are no stylizer."""
        if not isinstance(self.stylize, Stylize):
            raise SpecError(f"task {name_of(self)}.stylize must be stylize, not {name_of(self.stylize)}")

    def _opened(self, io: Io) -> Stylize:
        stylize = cast(Stylize, self.stylize)
        return stylize if stylize.fitted is None else stylize.opened(io.result(stylize.fitted).folder)


@register("task", "stylised")
@dataclass(frozen=True, kw_only=True)
class Stylised(_Painting):
    """Images painted in the style of others, each in one of its own, drawn at random.

    The result is stylised.safetensors: images, paintings (the style of each, at the size it was read) and stylised;
    and stylised.json: the stylizer's name, the images' file names where there are some, and the rows of the styles.
    """

    images: Count | None = 16

    def title(self) -> str:
        """Name the work for people."""
        return f"stylise {named(self.data)}"

    def run(self, io: Io) -> list[str]:
        """Paint chunk by chunk."""
        split, stylize = io.data(self.data, self.part), self._opened(io)
        n, found = count_images(split, self.images), []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, stylize, split)):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        chosen = joined.pop("chosen")
        joined["paintings"] = stylize.styles.load(stylize.part).images(chosen).expand(-1, 3, -1, -1)
        write_tensors(io.scratch / "stylised.safetensors", joined)
        names = None if split.names is None else list(split.names[:n])
        told = {"stylizer": stylize.stylizer_name, "names": names, "styles": chosen.tolist()}
        write_json(io.scratch / "stylised.json", told)
        return ["stylised.safetensors", "stylised.json"]

    def _work(self, io: Io, stylize: Stylize, split: Split, rows: Tensor) -> dict[str, Tensor]:
        x, rng = split.images(rows).to(io.device), Stream(derive(self.seed, "stylise"), rows.to(io.device))
        return {"images": x, "stylised": stylize(x, rng=rng), "chosen": stylize.chosen(x, rng)}


@register("task", "style_measure")
@dataclass(frozen=True, kw_only=True)
class StyleMeasure(_Painting):
    """How much nearer stylising brings images to the style of paintings, beside matching colours, and the edges left.

    Every image of a part is painted in the style of every painting of the parts `painted` of `paintings`, which the
    stylizer was not fitted on. Distances are `gram_distance`, as means over the layers of measuring networks that had
    no part in the stylizer: `random` (`RandomTextures`), `random with means` (the same without zero_mean), the named
    layers of `network`, and VGG-19 from torchvision's file `vgg`, where they are given.

    The result is measured.parquet, one row per measuring network, painting and image: index, style, network (their
    numbers), before (the distance of the untouched image), stylised, moments, covariance (of the image with its colours
    matched, see `colour_matched`), and edges_ of these three (`edge_correlation` with the untouched image); and
    measurement.json: per network the share of the distance that is left, its mean over images with an interval and by
    painting, and whether the demands hold: falls_by_half, further_than_colours (than either way of matching them) and
    contours_stay (edges of at least 0.5).
    """

    paintings: StylesField
    painted: Annotated[tuple[Part, ...], BeforeValidator(read_sequence)] = ("validation", "test")
    network: NetworkField | None = None
    layers: Annotated[tuple[str, ...], BeforeValidator(read_sequence)] = ("layer1", "layer2", "layer3")
    vgg: str = field(default="", metadata=dict(NOT_HASHED))
    vgg_sha256: str = ""
    images: Count | None = 100
    chunk: Count = 25

    def check(self) -> None:
        """Look up which VGG-19 it is; refuse transformations that are no stylizer."""
        super().check()
        if self.vgg and not self.vgg_sha256:
            object.__setattr__(self, "vgg_sha256", content_digest(self.vgg))

    def title(self) -> str:
        """Name the work for people."""
        return f"measure the style of {named(self.data)}"

    def run(self, io: Io) -> list[str]:
        """Paint and measure chunk by chunk."""
        split, stylize = io.data(self.data, self.part), self._opened(io)
        paintings = self._paintings(io)
        networks = self._networks(io, split)
        n, found = count_images(split, self.images), []
        for rows, part in in_chunks(io, n, self.chunk, partial(self._work, io, stylize, split, paintings, networks)):
            found.append(part)
            io.progress(int(rows[-1]) + 1, n)
        figures = {name: torch.cat([part[name] for part in found], -1) for name in found[0]}
        write_columns(io.scratch / "measured.parquet", _columns(figures))
        told = {"stylizer": stylize.stylizer_name, "images": n, "paintings": len(paintings)}
        layers = {name: list(net.layers) for name, net in networks.items()}
        write_json(io.scratch / "measurement.json", told | {"layers": layers} | _summary(figures, list(networks)))
        return ["measured.parquet", "measurement.json"]

    def _paintings(self, io: Io) -> Tensor:
        parts = [io.data(self.paintings, part, f"paintings, {part}").images() for part in self.painted]
        return torch.cat(parts).to(io.device).expand(-1, 3, -1, -1)

    def _networks(self, io: Io, split: Split) -> dict[str, Any]:
        found: dict[str, Any] = {"random": RandomTextures(), "random with means": RandomTextures(zero_mean=False)}
        if self.network is not None:
            io.classes_fit(self.network, split)
            network = NamedLayers(io.network(self.network), self.layers)
            found[network_name(self.network)] = _Grey(network) if split.shape[0] == 1 else network
        if self.vgg_sha256:
            found["VGG-19"] = VGGFeatures(read_tensors(described_file(self.vgg, self.vgg_sha256)), self.vgg)
        return {name: network.to(io.device) for name, network in found.items()}

    def _work(
        self, io: Io, stylize: Stylize, split: Split, paintings: Tensor, networks: dict[str, Features], rows: Tensor
    ) -> dict[str, Tensor]:
        """Return figures (networks, paintings, n), and edges (paintings, n)."""
        x, found = split.images(rows).to(io.device).expand(-1, 3, -1, -1), []
        for painting in paintings[:, None]:
            made = {
                "before": x,
                "stylised": stylize.with_styles(x, painting),
                "moments": colour_matched(x, painting, "moments"),
                "covariance": colour_matched(x, painting, "covariance"),
            }
            row = {name: _distances(networks, images, painting) for name, images in made.items()}
            row |= {f"edges_{name}": edge_correlation(images, x).float() for name, images in made.items()}
            found.append(row)
        return {name: torch.stack([row[name] for row in found], -2) for name in found[0]}


class _Grey(torch.nn.Module):
    """A measuring network for grey images, which sees the luma of RGB ones."""

    def __init__(self, network: NamedLayers) -> None:
        super().__init__()
        self.network, self.layers = network, network.layers

    def forward(self, images: Tensor) -> Any:
        """Return the maps of the luma."""
        return self.network(luma(images)[:, None])


def _distances(networks: dict[str, Features], images: Tensor, painting: Tensor) -> Tensor:
    """Return the mean distance over layers, (networks, n)."""
    return torch.stack(
        [torch.stack(list(gram_distance(net, images, painting).values())).mean(0) for net in networks.values()]
    )


def _columns(figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return figures (networks, paintings, n) as columns, edges repeated for every network."""
    networks, paintings, n = figures["before"].shape
    columns = {
        "index": torch.arange(n).repeat(networks * paintings),
        "style": torch.arange(paintings).repeat_interleave(n).repeat(networks),
        "network": torch.arange(networks).repeat_interleave(paintings * n),
    }
    return columns | {k: v.expand(networks, paintings, n).flatten() for k, v in figures.items() if k != "edges_before"}


def _summary(figures: dict[str, Tensor], networks: list[str]) -> dict[str, Any]:
    """Return the means, what is left of the distance, and whether the demands are met."""
    edges = {name: _interval(figures[f"edges_{name}"].nanmean(0)) for name in _COMPARED}
    found: dict[str, Any] = {"edges": edges, "edges_by_painting": figures["edges_stylised"].nanmean(-1).tolist()}
    for place, name in enumerate(networks):
        before = figures["before"][place]
        left = {key: _interval(figures[key][place].mean(0) / before.mean(0)) for key in _COMPARED}
        colours = min(left["moments"]["value"], left["covariance"]["value"])
        found[name] = {
            "before": float(before.mean()),
            "left": left,
            "left_by_painting": {key: (figures[key][place].mean(-1) / before.mean(-1)).tolist() for key in _COMPARED},
            "falls_by_half": left["stylised"]["value"] <= 0.5,
            "further_than_colours": left["stylised"]["value"] < colours,
        }
    return found | {"contours_stay": edges["stylised"]["value"] >= 0.5}


def _interval(values: Tensor) -> dict[str, float]:
    """Return a mean over images with its interval, of those where it is defined."""
    return bootstrap_mean(values[values.isfinite()])._asdict()


def named(data: Any) -> str:
    """Name a data set for people: its folder, where it has one."""
    return folder_name(data.path) if getattr(data, "path", "") else name_of(data)
