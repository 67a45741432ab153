"""Images beside what transformations make of them: the form of Zhang & Zhu 2019, Figures 1, 3, 4 and 6."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.report.content import Gallery, GalleryRow, Picture
from pellucid.report.numbers import MISSING, missing, percent
from pellucid.report.pairs import image_pixels
from pellucid.report.pictures import marked

SIDE = 168  # pixels of the longer side of a picture; larger images are shown smaller
SAID = "Under an image: the probability that a network gives to its true class."
MARKED = "✓: the network predicts that class; ✗: another one."
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
    """Return a row for each image, its versions side by side, and under each what the networks make of it.

    images (T, N, C, H, W) in [0, 1]: T versions of N images, named by captions (T); classes (N), the names of the
    true classes. probabilities, of each network (T, N): that of the true class, a line for each network. right
    (T, N) bool marks where a network predicts the true class. settings are keys of networks. Raises InputError for
    other shapes.
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
    sources = tuple((settings or {}).get(name) for name in probabilities or {})
    for place, label in enumerate(classes):
        small, centred = zip(*(shown(version[place][None]) for version in images))
        grey = grey or any(centred)
        lines = [_said(probabilities or {}, right or {}, version, place) for version in range(versions)]
        pictures = (
            Picture(title, image_pixels(one[0]), said=said, sources=sources)
            for title, one, said in zip(captions, small, lines)
        )
        rows.append(GalleryRow(label, tuple(pictures)))
    notes = ((SAID, bool(probabilities)), (MARKED, bool(probabilities and right)), (CENTRED, grey))
    return Gallery(caption, tuple(rows), tuple(captions), tuple(note for note, needed in notes if needed))


def _said(
    probabilities: Mapping[str, Tensor], right: Mapping[str, Tensor], version: int, place: int
) -> tuple[str, ...]:
    """Return for each network what it makes of one version of one image: its name, the probability, the mark."""
    said = []
    for name, shares in probabilities.items():
        share = float(shares[version, place])
        line = f"{name} · {MISSING if missing(share) else percent(share)}"
        said.append(marked(line, bool(right[name][version, place]) if name in right else None))
    return tuple(said)


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
