"""The tasks that paint images in the style of others, and measure what became of texture and contours."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor

from pellucid.data.split import Split
from pellucid.errors import DataError, SpecError
from pellucid.maths.edges import luma
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
from pellucid.spec import NOT_HASHED, Count, Whole, name_of, read_sequence, register
from pellucid.store import write_json, write_tensors
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import count_images, in_chunks
from pellucid.tasks.parquet import write_columns
from pellucid.tasks.stylizing import named
from pellucid.tasks.training import NetworkField, network_name
from pellucid.tasks.transforming import opened
from pellucid.transforms.stylize import StylesField, Stylize
from pellucid.transforms.vgg import VGGFeatures
from pellucid.weights import content_digest, described_file, read_tensors

_COMPARED = ("stylised", "moments", "covariance")


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
        split, stylize = io.data(self.data, self.part), opened(self.stylize, io)
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
        split, stylize = io.data(self.data, self.part), opened(self.stylize, io)
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
        parts = [io.data(self.paintings, part, f"paintings, {part}") for part in self.painted]
        if len({part.sha256 for part in parts}) < len(parts):
            raise DataError(
                f"every part of {parts[0].name} is all of its images, which would count more than once: name one part "
                "(--painted test), of paintings that the stylizer was not fitted on; or have the data set `folder` cut "
                "them (folder styles.path=DIR styles.size=128,128 styles.fit=crop styles.labelled=no)"
            )
        return torch.cat([part.images() for part in parts]).to(io.device).expand(-1, 3, -1, -1)

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
            row |= {f"edges_{name}": edge_correlation(made[name], x).float() for name in _COMPARED}
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
    return columns | {k: v.expand(networks, paintings, n).flatten() for k, v in figures.items()}


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
