"""The page of `pellucid bias`: what networks still recognise when texture or shape is taken away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pellucid.metrics.bias import ShapeBias
from pellucid.report.bias_curves import Levels, Results, bias_curves, bias_table
from pellucid.report.content import Block, Cell, CurveFigure, Gallery, Report, Section, Settings, Table

Keys = Mapping[str, str]
"""Of each network the key of the settings behind its numbers."""

UNTOUCHED = "untouched"
TERMS = (
    (
        "accuracy on correctly classified images",
        "of the images that a network classifies correctly when they are untouched, the share that it still classifies "
        "correctly after the transformation; each network is measured on its own such images",
    ),
    ("accuracy", "of all images, the share that is classified correctly after the transformation"),
    ("probability", "what the network's softmax gives to the true class"),
)
SHAPE = (
    "shape bias",
    "on images with the shape of one class and the texture of another: decisions for the shape's class, of all "
    "decisions for either; 100 % goes by shape alone, 0 % by texture alone",
)
MEASURES = {
    "sparsity": "how few pixels a map is made of: 0 where all count alike, near 1 where one pixel counts (Gini)",
    "contours": "rank correlation of a map with the strength of the edges in the same image: 1 where it lies on them",
    "similarity": "rank correlation of a map with that of the untouched image: 1 is unchanged",
}


@dataclass(frozen=True, kw_only=True)
class Bias:
    """What was measured; numbers by network, and in each one a transformation.

    `transforms` are their titles and `levels` the scales that some of them are on. `accuracy` begins with the untouched
    images, as does `maps`, of each measure, whose transformations are `mapped`. `known` counts the images that a
    network classifies correctly untouched. batch: the ratios are means over batches of so many images. stylizer: what
    made the stylised images, if any.
    """

    images: str
    transforms: tuple[str, ...]
    levels: tuple[Levels, ...]
    accuracy: Results
    on_correct: Results
    known: Mapping[str, int]
    batch: int | None = None
    shape: Mapping[str, ShapeBias] = field(default_factory=dict)
    maps: Mapping[str, Results] = field(default_factory=dict)
    mapped: tuple[str, ...] = ()
    maps_of: str = ""
    stylizer: str = ""


def page(
    found: Bias,
    *,
    strips: Sequence[Gallery] = (),
    panels: Sequence[Gallery] = (),
    settings: tuple[Settings, ...] = (),
    keys: Keys | None = None,
    keys_of_shape: Keys | None = None,
    keys_of_maps: Keys | None = None,
) -> Report:
    """Return the whole page. `keys` are those of the accuracies, which other tasks measure than shape bias and maps."""
    names = tuple(found.accuracy)
    terms = (*TERMS, *((SHAPE,) if found.shape else ()), *(MEASURES.items() if found.maps else ()))
    facts = [("Images", found.images), ("Networks", ", ".join(names))]
    facts += [("Stylised by", found.stylizer)] if found.stylizer else []
    sections = [
        Section("What is still recognised", _ratio(found), _recognised(found, keys)),
        Section("Accuracy", "", (_accuracy(found, keys),)),
    ]
    if found.shape:
        sections.append(Section("Shape or texture", "", (shape_table(found.shape, keys_of_shape),)))
    if strips:
        sections.append(Section("The images", "", tuple(strips)))
    if found.maps or panels:
        sections.append(Section("Where the networks look", found.maps_of, (*panels, *_measures(found, keys_of_maps))))
    return Report(
        "Shape or texture",
        "What networks still recognise when texture or shape is taken away, and where they look.",
        facts=tuple(facts),
        terms=terms,
        sections=tuple(sections),
        settings=settings,
    )


def curves_of(found: Bias, keys: Keys | None = None) -> CurveFigure | None:
    """Return accuracy on correctly classified images along every scale; None where there is no scale."""
    if not found.levels:
        return None
    return bias_curves(found.levels, found.on_correct, settings=keys)


def shape_table(found: Mapping[str, ShapeBias], keys: Keys | None = None) -> Table:
    """Return the shape-bias index of each network, with how many images it decided how."""
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (
            name,
            Cell(*one.bias, settings=(keys or {}).get(name)),
            *(Cell(count) for count in (one.shape, one.texture, one.neither)),
        )
        for name, one in found.items()
    )
    notes = ("Of the images that the network classifies correctly untouched; Wilson intervals.",)
    return Table("Shape bias", ("network", "shape bias", "by shape", "by texture", "by neither"), rows, notes)


def _recognised(found: Bias, keys: Keys | None) -> tuple[Block, ...]:
    drawn = curves_of(found, keys)
    caption = "Accuracy on correctly classified images"
    counts = ", ".join(f"{name} {count:,}" for name, count in found.known.items())
    notes = (f"Images that are classified correctly untouched: {counts}.",)
    table = bias_table(found.transforms, found.on_correct, caption=caption, settings=keys, notes=notes)
    return (table,) if drawn is None else (drawn, table)


def _ratio(found: Bias) -> str:
    if found.batch is None:
        return "Each share is of all images that the network classifies correctly untouched, with its Wilson interval."
    return (
        f"Each number is the mean of the ratios of batches of {found.batch} images, as in the authors' code, with a "
        "bootstrap interval; missing where a batch has no correctly classified image."
    )


def _accuracy(found: Bias, keys: Keys | None) -> Table:
    titles = (UNTOUCHED, *found.transforms)
    notes = ("Wilson intervals.",)
    return bias_table(titles, found.accuracy, caption="Accuracy on all images", settings=keys, notes=notes)


def _measures(found: Bias, keys: Keys | None) -> tuple[Table, ...]:
    titles, notes = (UNTOUCHED, *found.mapped), ("Means over the images that were mapped, with bootstrap intervals.",)
    return tuple(
        bias_table(titles, results, caption=measure.capitalize(), style="decimals", settings=keys, notes=notes)
        for measure, results in found.maps.items()
    )
