"""Images beside what transformations make of them: the form of Zhang & Zhu 2019, Figures 1, 3, 4 and 6."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.report.content import Gallery, GalleryRow, Picture
from pellucid.report.pairs import image_pixels

SIDE = 168  # pixels of the longer side of a picture; larger images are shown smaller
CENTRED = "Images without their mean are drawn about grey, from -1 (black) to 1 (white)."
_EVEN = 0.1  # share of the values by which an image without its mean may be off


def strip(
    images: Tensor,
    captions: Sequence[str],
    probabilities: Mapping[str, Tensor] | None = None,
    *,
    classes: Sequence[str],
    right: Mapping[str, Tensor] | None = None,
    caption: str = "Transformed images",
    settings: Mapping[str, str] | None = None,
) -> Gallery:
    """Return versions of images side by side, under each the probability that a network gives to the true class.

    images (T, N, C, H, W) in [0, 1]: T versions of N images, named by captions (T); classes (N), the names of the
    true classes. probabilities, of each network (T, N): a row for each image and network; none: a row for each image.
    right (T, N) bool marks where the network predicts the true class. Raises InputError for other shapes.
    """
    versions, count = images.shape[:2]
    parts = (*(probabilities or {}).values(), *(right or {}).values())
    if images.ndim != 5 or len(captions) != versions or len(classes) != count:
        raise InputError(
            f"a strip needs images (T, N, C, H, W), T captions and N classes; got {tuple(images.shape)}, "
            f"{len(captions)} and {len(classes)}"
        )
    if any(tuple(part.shape) != (versions, count) for part in parts):
        raise InputError(f"a strip needs one value a version and image, ({versions}, {count}), of every network")
    rows, grey = [], False
    for place, label in enumerate(classes):
        small, centred = zip(*(shown(version[place][None]) for version in images))
        plain, grey = [Picture(said, image_pixels(one[0])) for said, one in zip(captions, small)], grey or any(centred)
        if not probabilities:
            rows.append(GalleryRow(label, tuple(plain)))
        for name, shares in (probabilities or {}).items():
            marks = None if right is None or name not in right else right[name][:, place].tolist()
            key = (settings or {}).get(name)
            rows.append(GalleryRow(name, _said(plain, label, shares[:, place].tolist(), marks, key), f"class {label}"))
    notes = ("Under an image: the probability of its true class.",) if probabilities else ()
    return Gallery(caption, tuple(rows), tuple(captions), (*notes, *((CENTRED,) if grey else ())))


def _said(
    pictures: Sequence[Picture], label: str, shares: Sequence[float], marks: Sequence[bool] | None, key: str | None
) -> tuple[Picture, ...]:
    """Return pictures with what one network says about them."""
    marked = [None] * len(pictures) if marks is None else marks
    return tuple(
        replace(picture, label=label, confidence=share, right=mark, settings=key)
        for picture, share, mark in zip(pictures, shares, marked)
    )


def shown(image: Tensor) -> tuple[Tensor, bool]:
    """Return an image (1, C, H, W) as it is drawn, and whether its zero is drawn grey.

    That is so where negative values take about as much as positive ones: filters that take away an image's mean.
    It is no larger than a page shows it: photographs would make that huge.
    """
    centred = bool(image.mean().abs() < _EVEN * image.abs().mean())
    return shrunk(image / 2 + 0.5 if centred else image), centred


def shrunk(images: Tensor) -> Tensor:
    """Return images or maps (N, C, H, W), each no larger than a page shows it."""
    larger = max(images.shape[-2:]) / SIDE
    if larger <= 1:
        return images
    size = [max(1, math.ceil(side / larger)) for side in images.shape[-2:]]
    return functional.interpolate(images.float(), size=size, mode="area")
