"""House numbers as Ross & Doshi-Velez prepare them: grey, and normalised image by image."""

import functools
import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pellucid.data.assemble import form_of, table_of
from pellucid.data.cuts import choose
from pellucid.data.image import decode_rows
from pellucid.data.location import Location
from pellucid.data.published import Published, from_hub, local
from pellucid.data.source import Role, Source
from pellucid.data.split import PARTS, Split, check_part
from pellucid.data.whole import limited
from pellucid.errors import DataError
from pellucid.maths.decolorize import decolorized
from pellucid.rng import Stream, derive, permutation
from pellucid.spec import Count, Flag, Whole, register

Grey = Literal["grundland_dodgson", "luma"]
LUMA = (0.2989, 0.5870, 0.1140)  # as the authors write them
HELD = {"train": 400, "extra": 200}  # first images of each class that are held out for validation
FLAT = 1e-4  # a standard deviation below counts as 1
CHUNK = 250  # images that are prepared at a time

Rows = list[tuple[Role, Tensor]]


@register("data", "svhn_ross")
@dataclass(frozen=True, kw_only=True)
class SVHNRoss(Published):
    """House-number digits, 32x32 grey with global contrast normalisation, in the data's own range mapped to [0, 1].

    g = grey(RGB) on 0..255;  v = (g - mean(g)) / s, s = std(g) with n - 1, below 1e-4: 1;  x = (v - low) / (high - low)

    low and high are the extremes over all three parts: the split's `value_range`, by which `converted_eps` and
    `converted_weight` turn the papers' numbers. Without `gcn`, x = g / 255. Pixels are float32 v (N, 1, 32, 32).
    Validation: of each class the first 400 of train and the first 200 of extra (6,000). Train: the rest of extra, then
    the rest of train, each in an order of `seed`, cut to the first `pool` (none: all). Where extra or train is
    missing, the parts are those of svhn; `cut` says which it was. Every part is made from all of them, for the range.
    Local contrast normalisation is a layer of the network (ross_cnn lcn=true).

    Source: Ross & Doshi-Velez 2018, Experiments; split of Sermanet et al. 2012; grey as the paper cites it (Grundland &
    Dodgson 2007, its pairs drawn by `seed`), or grey=luma as the authors' code has it; numbers from the code.
    Deviations: the orders are seeded.
    """

    source: ClassVar[Source] = Source(
        "svhn_ross",
        "ufldl-stanford/svhn",
        "cropped_digits",
        extra=("extra",),
        folders=("svhn",),
        channels=3,
        classes=tuple("0123456789"),
        group="house_number",
    )

    grey: Grey = "grundland_dodgson"
    gcn: Flag = True
    pool: Count | None = 200_000
    seed: Whole = 0

    def load(self, part: str) -> Split:
        """Return a part of the set; raise DataError if it is missing, unreadable or too small."""
        check_part(part)
        location = local(self.source) or from_hub(self.source, ("train", "extra", "test"), self.revision)
        whole = _prepared(self.source, location, self.grey, self.gcn, self.pool, self.seed)[part]
        return _first(whole, getattr(self, part))


def _first(whole: Split, limit: int | None) -> Split:
    if limit is None:
        return whole
    rows, words = limited(
        torch.arange(len(whole)), whole.labels, limit, whole.cut, f"the {whole.part} part of {whole.name}"
    )
    return whole.at(rows, f"{whole.sha256}, {words}", words)


@functools.lru_cache(maxsize=1)
def _prepared(
    source: Source, location: Location, grey: Grey, gcn: bool, pool: int | None, seed: int
) -> dict[str, Split]:
    """Return all parts, since the range is over all of them."""
    chosen = {part: _choose(source, location, part, pool, seed) for part in PARTS}
    made = {part: _part(source, location, rows, grey, gcn, seed) for part, (rows, _) in chosen.items()}
    low = min(float(values.min()) for values, _, _ in made.values()) if gcn else 0.0
    high = max(float(values.max()) for values, _, _ in made.values()) if gcn else 1.0
    how = f"; {grey} grey{', global contrast normalisation' if gcn else ''}"
    return {
        part: Split(
            name="svhn_ross",
            part=part,
            pixels=values,
            labels=labels,
            classes=source.classes,
            sha256=sha256,
            cut=chosen[part][1] + how,
            source=location.source,
            value_range=(low, high if high > low else low + 1),
        )
        for part, (values, labels, sha256) in made.items()
    }


def _choose(source: Source, location: Location, part: str, pool: int | None, seed: int) -> tuple[Rows, str]:
    """Return the rows of a part in each published split, and the cut in words."""

    def labels(role: Role) -> Tensor:
        return table_of(source, location, role).labels

    if not {"train", "extra", "test"} <= set(location.roles):
        published = tuple(role for role in location.roles if role != "extra")
        role, rows, words = choose(part, published, labels, lambda role: table_of(source, location, role).group)
        return [(role, rows)], f"{words} (no extra split is there)" if "train" in published else words
    if part == "test":
        return [("test", torch.arange(len(labels("test"))))], "the published test split"
    held = {role: _held(labels(role), role) for role in HELD}
    if part == "validation":
        return list(held.items()), "of each class the first 400 of train and the first 200 of extra"
    taken: Rows = []
    for role in ("extra", "train"):
        left = torch.ones(len(labels(role)), dtype=torch.bool)
        left[held[role]] = False
        rest = left.nonzero()[:, 0]
        rest = rest[permutation(len(rest), derive(seed, "pool", role))]
        room = len(rest) if pool is None else pool - sum(len(rows) for _, rows in taken)
        taken.append((role, rest[:room]))
    taken = [(role, rows) for role, rows in taken if len(rows)]
    counts = ", then ".join(f"{len(rows):,} of {role}" for role, rows in taken)
    return taken, f"{counts}, without the validation images, each in an order of seed {seed}"


def _held(labels: Tensor, role: Role) -> Tensor:
    """Return the first rows of each class, ascending."""
    first = [torch.nonzero(labels == c)[: HELD[role], 0] for c in range(10)]
    short = next((c for c, rows in enumerate(first) if len(rows) < HELD[role]), None)
    if short is not None:
        raise DataError(f"class {short} of the {role} split of svhn_ross has fewer than {HELD[role]} images")
    return torch.cat(first).sort().values


def _part(
    source: Source, location: Location, rows: Rows, grey: Grey, gcn: bool, seed: int
) -> tuple[Tensor, Tensor, str]:
    """Return values float32 (N, 1, H, W), labels (N,) and the SHA-256 over the RGB pixels and the labels."""
    size = form_of(source, location, rows[0][0]).size
    values, done = torch.empty(sum(len(taken) for _, taken in rows), 1, *size), 0
    digest, labels = hashlib.sha256(), []
    for role, taken in rows:
        table, form = table_of(source, location, role), form_of(source, location, role)
        stream = Stream(derive(seed, "grey", role))
        for some in torch.split(taken, CHUNK):
            rgb = decode_rows(table.images, some, form, table.where)
            digest.update(rgb.numpy().data)
            made = grey_of(rgb, grey, stream.take(some))
            values[done : done + len(some)] = contrast_normalised(made) if gcn else made / 255
            done += len(some)
        labels.append(table.labels[taken])
    together = torch.cat(labels)
    digest.update(together.numpy().tobytes())
    return values, together, digest.hexdigest()


def grey_of(rgb: Tensor, how: Grey, rng: Stream) -> Tensor:
    """Return uint8 images (N, 3, H, W) as grey ones (N, 1, H, W), float64 on 0..255."""
    if how == "luma":
        return (rgb.to(torch.float64) * rgb.new_tensor(LUMA, dtype=torch.float64).view(3, 1, 1)).sum(1, keepdim=True)
    return 255 * decolorized(rgb.to(torch.float64) / 255, rng=rng)


def contrast_normalised(grey: Tensor) -> Tensor:
    """Return images (N, 1, H, W) of mean 0 and standard deviation 1 (n - 1) each; one below 1e-4 counts as 1."""
    mean, std = grey.mean((1, 2, 3), keepdim=True), grey.std((1, 2, 3), keepdim=True)
    return (grey - mean) / torch.where(std < FLAT, 1.0, std)
