"""Stylize: texture taken away by painting every image in the style of another one."""

import copy
import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor

from pellucid.errors import DataError, InputError, SpecError
from pellucid.guard import batches, check_images, recording
from pellucid.maths.edges import luma
from pellucid.protocols import DataField, Part
from pellucid.rng import Stream
from pellucid.spec import NOT_HASHED, Count, Share, Whole, kind_of, member, register
from pellucid.transforms.adain import Stylizer, restyled, style_moments, stylised
from pellucid.transforms.autoencoder import CompactStylizer, compact_stylizer
from pellucid.transforms.vgg import vgg_stylizer
from pellucid.weights import content_digest, described_file, read_tensors

if TYPE_CHECKING:
    from pellucid.data.split import Split

FITTED = "stylizer.safetensors"  # the file of a task that fits a stylizer


def _folder(value: Any) -> Any:
    """Read the path of a folder as the images in it, their largest centre squares at 224 pixels."""
    if isinstance(value, str) and (os.path.isdir(value) or os.sep in value.split(" ")[0]):
        return {"data": "style_images", "path": value}
    return value


def _makes_a_stylizer(task: Any) -> Any:
    if task is not None and kind_of(task) == "task" and not getattr(type(task), "makes_stylizer", False):
        raise ValueError("a task that fits a stylizer is needed: fit_stylizer")
    return task


StylesField = Annotated[DataField, BeforeValidator(_folder)]
FittedField = Annotated[Any, BeforeValidator(_makes_a_stylizer), member("task")]


@register("transform", "stylize")
@dataclass(frozen=True, kw_only=True)
class Stylize:
    """Paint each image in the style of one of `styles`, drawn at random: contours stay, texture becomes another's.

    x' = decode(alpha t + (1 - alpha) f(x)),   t = std(f(s)) (f(x) - mean f(x)) / std f(x) + mean f(s), per channel

    styles: the path of a folder (`style_images` at 224 pixels: largest centre square of each, what cannot be read
    skipped), or any data set, of which `part` is taken; grey ones are made RGB. The description holds the sha256 of the
    images, not where they lie. weights: a file, or hf://OWNER/NAME/FILE, of a stylizer that `pellucid stylize fit`
    made; or, with `decoder`, of the normalised VGG-19 of Huang & Belongie in the public port's names (see
    `vgg_stylizer`). Files are safetensors or torch.save's, known by their sha256. fitted: the task that makes the
    stylizer, in their place; whoever runs tasks calls `opened`. refine: how many steps of descent on the pixels follow
    (see `refined`); None: 40 of a compact stylizer, none of VGG-19, as in the paper. `stylizer_name` says which
    stylizer it is: results must, since what is not VGG-19 is a stand-in for it.

    Images (N, C, H, W) float in [0, 1] of any size -> the same, images of all sides continued to the network's stride.
    Grey images are stylised as RGB, and the luma of that is returned. The style is rng's, per image. Raises InputError
    for other than 1 or 3 channels, CheckpointError for weights that are missing, damaged or not those described,
    DataError for styles that are missing or not those described.
    Source: Huang & Belongie 2017, equations 8 and 14; Zhang & Zhu 2019, section 3.2 (alpha = 1, one random painting of
    Painter by Numbers per image). Deviations: with VGG-19, that the authors draw paintings by another generator (seed
    49809); a compact stylizer is ours.
    """

    styles: StylesField = field(metadata=dict(NOT_HASHED))
    part: Part = field(default="train", metadata=dict(NOT_HASHED))
    styles_sha256: str = ""
    weights: str = field(default="", metadata=dict(NOT_HASHED))
    decoder: str = field(default="", metadata=dict(NOT_HASHED))
    sha256: str = ""
    decoder_sha256: str = ""
    fitted: FittedField | None = None
    alpha: Share = 1.0
    refine: Whole | None = None
    batch_size: Count = field(default=32, metadata=dict(NOT_HASHED))

    def check(self) -> None:
        """Look up which styles, weights and steps they are; refuse no weights, and a task beside files."""
        if (self.fitted is None) == (not self.weights and not self.sha256) or (self.fitted and self.decoder):
            raise SpecError(
                "transform stylize needs either weights, of VGG-19 with its decoder or of pellucid stylize fit, or "
                "fitted, the task that makes them"
            )
        if not self.styles_sha256:
            object.__setattr__(self, "styles_sha256", self.styles.load(self.part).sha256)
        for place in ("", "decoder"):
            key = f"{place}_sha256".lstrip("_")
            if getattr(self, place or "weights") and not getattr(self, key):
                object.__setattr__(self, key, content_digest(getattr(self, place or "weights")))
        if self.refine is None:
            object.__setattr__(self, "refine", 0 if self.decoder_sha256 else CompactStylizer.refine)

    def __call__(self, images: Tensor, *, rng: Stream | None = None) -> Tensor:
        """Return the images, each in a style of its own."""
        images = check_images(images)
        network, split = self._network(images), self._split()
        chosen, made = self.chosen(images, rng), []
        for part, rows in zip(batches(images, self.batch_size), batches(chosen, self.batch_size)):
            needed, own = torch.unique(rows, return_inverse=True)
            levels = style_moments(network, _coloured(split.images(needed.cpu()).to(images)), self.batch_size)
            known = [(mean[own], deviation[own]) for mean, deviation in levels]
            made.append(_as(images, restyled(network, _coloured(part), known, self.alpha, self.refine)))
        return torch.cat(made) if made else images.clone()

    def chosen(self, images: Tensor, rng: Stream | None = None) -> Tensor:
        """Return the row of each image's style among the styles, (N,)."""
        return (rng or Stream()).child("style").integers(images, len(self._split()))

    def with_styles(self, images: Tensor, styles: Tensor) -> Tensor:
        """Return images (N, C, H, W), each in the style of the image (N, C, h, w) in its place."""
        images, styles = check_images(images), check_images(styles)
        network, content = self._network(images), _coloured(images)
        return _as(images, stylised(network, content, _coloured(styles), self.alpha, self.batch_size, self.refine))

    def opened(self, folder: Path) -> "Stylize":
        """Return the transformation with the stylizer that its task has made, the task's folder given."""
        return self if self.fitted is None else replace(self, fitted=None, weights=str(folder / FITTED), sha256="")

    @property
    def stylizer_name(self) -> str:
        """Which stylizer this is, for people: network, how it came to its weights, and their sha256."""
        refining = f", {self.refine} refining steps" if self.refine else ""
        if self.fitted is not None:
            return f"{self.fitted.called}{refining} (a stand-in for VGG-19)"
        network = _loaded(self.weights, self.sha256, self.decoder, self.decoder_sha256)
        files = " and ".join(sha[:12] for sha in (self.sha256, self.decoder_sha256) if sha)
        stand_in = "" if self.decoder else " (a stand-in for VGG-19)"
        return f"{network.called}{refining}{stand_in}, weights sha256 {files}"

    def _network(self, images: Tensor) -> Stylizer:
        if self.fitted is not None:
            raise SpecError("this stylize waits for its task (fitted): run the task and use `opened`, as tasks do")
        with recording(False):  # weights that can be differentiated through, also where nobody else records
            network = _loaded(self.weights, self.sha256, self.decoder, self.decoder_sha256)
            return copy.deepcopy(network).to(images.device, images.dtype)

    def _split(self) -> "Split":
        split = self.styles.load(self.part)
        if split.sha256 != self.styles_sha256:
            raise DataError(f"the styles of {split.name} are not those that were described: they have been changed")
        return split


@functools.lru_cache(maxsize=2)
def _loaded(weights: str, sha256: str, decoder: str, decoder_sha256: str) -> Stylizer:
    """Return the stylizer in files, float32 on the CPU; it is shared, and not to be changed."""
    own = described_file(weights, sha256)
    if not decoder_sha256:
        return compact_stylizer(own)
    mirror = described_file(decoder, decoder_sha256)
    return vgg_stylizer(read_tensors(own), read_tensors(mirror), (weights, decoder))


def _coloured(images: Tensor) -> Tensor:
    """Return images as RGB; raise InputError for other than one or three channels."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"stylize takes grey or RGB images, not {images.shape[1]} channels")
    return images.expand(-1, 3, -1, -1)


def _as(images: Tensor, made: Tensor) -> Tensor:
    """Return RGB images in as many channels as others have."""
    return made if images.shape[1] == 3 else luma(made)[:, None].clamp(0, 1)
