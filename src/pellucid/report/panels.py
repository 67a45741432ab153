"""What networks look at in versions of an image: the form of Zhang & Zhu 2019, Figures 2, 8, 9 and 10."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pellucid.errors import InputError
from pellucid.interpreters.heatmap import Scaled, reduce_channels, resize, scale
from pellucid.report.content import Gallery, GalleryRow, Picture
from pellucid.report.pairs import image_pixels
from pellucid.report.strips import CENTRED, shown, shrunk

HOW = "A map: magnitudes summed over channels, divided by their own 99th percentile; bright is where the network looks."


def panel(
    images: Tensor,
    maps: Mapping[str, Tensor],
    columns: Sequence[str],
    *,
    title: str = "image",
    label: str | None = None,
    probabilities: Mapping[str, Tensor] | None = None,
    caption: str = "What the networks look at",
    settings: Mapping[str, str] | None = None,
) -> Gallery:
    """Return versions of an image above, and under them the maps of each network in a row of its own.

    images (T, C, H, W) in [0, 1], the versions, named by columns (T); maps, of each network (T, h, w) or (T, C, h, w),
    raw. Under a map stands the probability (T) that the network gives to the class called `label`, where both are
    given. Raises InputError for other numbers of maps, columns or probabilities.
    """
    counts = {len(columns), *(len(own) for own in maps.values()), *(len(own) for own in (probabilities or {}).values())}
    if images.ndim != 4 or counts - {len(images)}:
        raise InputError(
            f"a panel needs images (T, C, H, W) and a column, a map and a probability for each; got images "
            f"{tuple(images.shape)} and {', '.join(str(count) for count in sorted(counts))} of the others"
        )
    drawn = [shown(image[None]) for image in images]
    rows = [GalleryRow(title, tuple(Picture(said, image_pixels(one[0])) for said, (one, _) in zip(columns, drawn)))]
    size = (drawn[0][0].shape[2], drawn[0][0].shape[3])
    flat: dict[str, int] = {}
    for name, own in maps.items():
        bright, constant = magnitudes(own)
        flat |= {name: int(constant.sum())} if constant.any() else {}
        sized = resize(shrunk(bright[:, None])[:, 0], size)
        chances = None if probabilities is None or name not in probabilities else probabilities[name]
        pictures = tuple(
            Picture(
                said,
                sized[place].cpu().numpy(),
                "unsigned",
                label if chances is not None else None,
                None if chances is None else float(chances[place]),
                settings=(settings or {}).get(name),
            )
            for place, said in enumerate(columns)
        )
        rows.append(GalleryRow(name, pictures))
    notes = [HOW, *(("Under a map: the probability of the true class.",) if label is not None else ())]
    notes += [CENTRED] if any(centred for _, centred in drawn) else []
    notes += [f"Maps of {name} that are zero everywhere: {count}." for name, count in flat.items()]
    return Gallery(caption, tuple(rows), tuple(columns), tuple(notes))


def magnitudes(maps: Tensor) -> Scaled:
    """Return raw maps (T, h, w) or (T, C, h, w) as they are shown: sum_c |m_c| / its 99th percentile, at most 1.

    Source: Zhang & Zhu 2019, authors' code. Deviations: none known.
    """
    return scale(reduce_channels(maps, "abs_sum").abs().float())
