"""Grey noise in the form of a data set: as many images, as large, of as many classes. For plans, before it is here."""

from dataclasses import dataclass
from typing import Any

import torch

from pellucid.data.drawn import Drawn
from pellucid.data.split import PARTS, Split, check_part
from pellucid.errors import DataError
from pellucid.protocols import DataField
from pellucid.rng import Stream
from pellucid.spec import name_of, register

FORMS: dict[str, tuple[int, int, int, tuple[int, int, int]]] = {  # channels, side, classes, images of each part
    "mnist": (1, 28, 10, (55_000, 5_000, 10_000)),
    "fashion_mnist": (1, 28, 10, (55_000, 5_000, 10_000)),
    "notmnist": (1, 28, 10, (200_000, 10_000, 10_000)),
    "svhn": (3, 32, 10, (65_931, 7_326, 26_032)),
    "svhn_ross": (1, 32, 10, (200_000, 6_000, 26_032)),
    "cifar10": (3, 32, 10, (45_000, 5_000, 10_000)),
    "cifar100": (3, 32, 100, (45_000, 5_000, 10_000)),
    "tiny_imagenet": (3, 64, 200, (90_000, 10_000, 10_000)),
    "caltech256": (3, 256, 257, (22_000, 2_400, 6_000)),
    "restricted_imagenet": (3, 224, 9, (231_000, 26_000, 10_000)),
    "digits": (1, 28, 10, (1_197, 200, 400)),
    "glyphs": (1, 28, 10, (10_000, 1_000, 2_000)),
}


@register("data", "blank")
@dataclass(frozen=True, kw_only=True)
class Blank:
    """One image of noise, repeated as often as another data set has images: what planning needs while it is not here.

    Number, size and classes are those that are published (the last three sets: rounded), with the limits, `size` and
    `crop` of the description. `load` raises DataError for sets whose form is not known, such as folders.

    >>> split = Blank(of={"data": "caltech256", "crop": 224}).load("test")
    >>> len(split), split.shape, len(split.classes)
    (6000, (3, 224, 224), 257)
    """

    of: DataField

    def load(self, part: str) -> Split:
        """Return a part: labels go round through the classes."""
        check_part(part)
        count, (channels, side, classes) = number_of(self.of, part), form_of(self.of)
        noise = Stream(0, torch.arange(1)).uniform(torch.empty(1, channels, side, side))
        pixels = (255 * noise).to(torch.uint8)
        return Split(
            name=f"blank {name_of(self.of)}",
            part=part,
            pixels=pixels.expand(count, -1, -1, -1),
            labels=torch.arange(count) % classes,
            classes=tuple(str(k) for k in range(classes)),
            sha256="none: noise",
            cut=f"{count:,} times one image of noise",
            source="made",
        )


def form_of(data: Any) -> tuple[int, int, int]:
    """Return channels, side and number of classes of a named data set; raise DataError where they are not known."""
    if isinstance(data, Drawn):
        return form_of(data.of)
    if name_of(data) not in FORMS:
        raise DataError(f"the images of {name_of(data)} are not here, and their form is not known")
    channels, side, classes, _ = FORMS[name_of(data)]
    return channels, getattr(data, "size", None) or getattr(data, "crop", None) or side, classes


def number_of(data: Any, part: str) -> int:
    """Return how many images a part of a named data set has; raise DataError where that is not known."""
    form_of(data)
    if isinstance(data, Drawn):
        return min(data.images, number_of(data.of, part)) if part == "test" else number_of(data.of, part)
    count = FORMS[name_of(data)][3][PARTS.index(part)]
    return min(count, getattr(data, part, None) or count)
