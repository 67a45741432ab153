"""pellucid bias."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place
from pellucid.cli.fields import data_fields, split_words
from pellucid.errors import DataError, SpecError

BATCH = 32  # images in a batch of the authors' code
SHOWN = 4  # images whose maps are drawn


def bias(
    *words: Annotated[
        str,
        Parameter(
            help="Networks (checkpoint folders, or package.module:attribute), and fields: data.test=500, and "
            "model.mean=0.5 of imported networks."
        ),
    ],
    data: Annotated[str, Parameter(help="A data set (pellucid list data).")],
    transforms: Annotated[
        str | None,
        Parameter(
            help='Transformations (pellucid list transform), with commas between: "saturation p=8, patch_shuffle k=4, '
            'low_pass radius=8" [all, at the levels of Zhang & Zhu where they print any].'
        ),
    ] = None,
    part: Annotated[str, Parameter(help="train, validation or test.")] = "test",
    images: Annotated[str | None, Parameter(help="Only the first so many images.")] = None,
    maps: Annotated[
        int, Parameter(help="How many images to map, untouched and transformed; the first 4 are drawn. 0: none.")
    ] = 16,
    interpreter: Annotated[
        str | None, Parameter(help='What makes the maps, such as "gradient score=log_probability" [SmoothGrad].')
    ] = None,
    styles: Annotated[Place | None, Parameter(help="A folder of paintings: also stylise the images.")] = None,
    stylizer: Annotated[
        str | None,
        Parameter(help="The file of what paints: of pellucid stylize fit, or VGG-19 and its decoder, a comma between."),
    ] = None,
    names: Annotated[
        str | None, Parameter(help="Names of the networks, with commas between [those of their folders].")
    ] = None,
    batch_ratios: Annotated[
        bool,
        Parameter(
            help="Accuracy on correctly classified images as the authors' code has it: the mean over batches of 32 "
            "images of each batch's ratio. Images of batches with few correct ones then count for more.",
            negative="",
        ),
    ] = False,
    seed: Annotated[str, Parameter(help="Seed of everything random.")] = "0",
    out: Annotated[Place, Parameter(help="Folder for page, figures and tables.")] = Path("bias"),
    common: Common = Common(),
) -> None:
    """Measure what networks still recognise when texture or shape is taken away, and where they look.

    Accuracy is the share of all images that is classified correctly after a transformation. Accuracy on correctly
    classified images is the share of those that the network classified correctly untouched: each network is its own
    reference, so that networks of different accuracy can be compared. The shape bias (with --styles and --stylizer) is
    the share of decisions for the shape's class, of all decisions for the class of the shape or of the texture, on
    images that have the texture of another class. All have 95 % intervals. Of maps: sparsity (Gini, near 1: few
    pixels), contours (rank correlation with the image's edges) and similarity (rank correlation with the map of the
    untouched image).

    --out gets bias.html, bias.csv, bias.json, and PNGs of the curves, strips of images and panels of maps. The same
    command goes on after an interruption.
    """
    from pellucid.cli.biased import Asked, deliver, measured, numbers, show
    from pellucid.cli.networks import named_networks
    from pellucid.spec import from_dict
    from pellucid.transforms.stylize import Stylize

    paths, fields = split_words(words)
    if not paths:
        raise SpecError("pellucid bias needs the folder of a checkpoint, or package.module:attribute")
    networks, fields = named_networks(paths, fields)
    data_set, fields = data_fields(data, fields)
    if fields:
        raise SpecError(f"{fields[0]} belongs to nothing here; write data.test=500 or model.mean=0.5")
    if maps < 0:
        raise SpecError(f"--maps must be 0 or more, not {maps}")
    labels = _names(names, networks)
    common.open_store()  # which says where data sets are
    split = from_dict(data_set, "data").load(part)
    _fitting(split, labels, networks)
    table: dict[str, Any] = {"task": "transformed", "data": data_set, "part": part, "images": images, "seed": seed}
    chosen = _transforms(transforms, table | {"network": networks[0]}, split, _stylize(styles, stylizer))
    stylize = next((one for one in chosen if isinstance(one, Stylize)), None)
    mapped = chosen if transforms is not None else _telling(chosen)
    looks = table | {"task": "sensitivity", "transforms": mapped, "images": maps, "shown": min(maps, SHOWN)}
    looks |= {"interpreter": interpreter} if interpreter is not None else {}

    def each(wanted: bool, task: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(from_dict(task | {"network": network}, "task") for network in (networks if wanted else ()))

    asked = Asked(
        names=labels,
        split=split,
        transformed=each(True, table | {"transforms": chosen}),
        conflicts=each(stylize is not None, table | {"task": "cue_conflict", "stylize": stylize}),
        mappings=each(maps > 0, looks),
        batch=BATCH if batch_ratios else None,
    )
    found = measured(asked, common)
    page = deliver(found, out, common)
    common.say({"page": str(page), **numbers(found)})
    if not common.json:
        show(found)
        print(page)


def usual(shape: tuple[int, int, int]) -> tuple[Any, ...]:
    """Return the transformations for images (C, H, W): the paper's levels, and of the others a few for their size."""
    from pellucid.transforms import (
        Blur,
        Edges,
        GaussianNoise,
        Grayscale,
        HighPass,
        LowPass,
        PatchShuffle,
        RandomFourier,
        Saturation,
        Silhouette,
    )

    channels, height, width = shape
    finest = min(height, width) / 2  # the highest frequency, in cycles per image

    def radii(*shares: float) -> list[int]:
        return sorted({max(1, round(finest * share)) for share in shares})

    return (
        *(Saturation(p=p) for p in (0.25, 0.5, 1, 2, 4, 8, 16, 64, 1024)),
        *(PatchShuffle(k=k) for k in (2, 4, 8) if height % k == 0 and width % k == 0),
        *(LowPass(radius=radius) for radius in radii(1 / 8, 1 / 4, 1 / 2)),
        *(HighPass(radius=radius) for radius in radii(1 / 16, 1 / 8, 1 / 4)),
        *(RandomFourier(drop=drop) for drop in (0.1, 0.5)),
        *(GaussianNoise(sigma=sigma) for sigma in (0.05, 0.1, 0.2)),
        *(Blur(sigma=round(sigma * finest / 16, 1)) for sigma in (0.5, 1, 2)),
        *((Grayscale(),) if channels > 1 else ()),
        Silhouette(),
        Edges(),
    )


def _telling(transforms: Sequence[Any]) -> tuple[Any, ...]:
    """Return the few of the usual transformations that are drawn and mapped side by side, as in Figures 1 and 2."""
    from pellucid.spec import name_of

    picked: dict[str, list[Any]] = {}
    for transform in transforms:
        picked.setdefault(name_of(transform), []).append(transform)
    saturated = [one for one in picked.get("saturation", ()) if one.p in (8, 1024)]
    filtered = [one for name in ("low_pass", "high_pass") for one in picked.get(name, ())[1:2]]
    return (*picked.get("stylize", ()), *saturated, *picked.get("patch_shuffle", ())[:2], *filtered)


def _transforms(text: str | None, table: dict[str, Any], split: Any, more: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the transformations asked for, each tried on one image, before anything long."""
    from pellucid.report.bias_curves import transform_title
    from pellucid.spec import from_dict, read_sequence

    chosen = usual(split.shape)
    if text is not None:
        if not read_sequence(text):
            raise SpecError("--transforms names none; pellucid list transform shows what there is")
        chosen = from_dict(table | {"transforms": text}, "task").transforms
    chosen = (*chosen, *more)
    for place, transform in enumerate(chosen):
        if transform in chosen[:place]:
            raise SpecError(f"--transforms names {transform_title(transform)} twice")
        if getattr(transform, "fitted", None) is None:
            transform(split.images(slice(1)))
    return chosen


def _stylize(styles: Path | None, stylizer: str | None) -> tuple[Any, ...]:
    """Return the stylisation asked for, if any."""
    from pellucid.spec import from_dict, read_sequence

    if styles is None and stylizer is None:
        return ()
    files = read_sequence(stylizer or "")
    if styles is None or len(files) not in (1, 2):
        raise SpecError("stylised images need --styles, a folder of paintings, and --stylizer, the file of what paints")
    if not styles.is_dir():
        raise SpecError(f"--styles {styles} is no folder")
    table = {"transform": "stylize", "styles": str(styles.absolute()), **dict(zip(("weights", "decoder"), files))}
    return (from_dict(table, "transform"),)


def _names(given: str | None, networks: Sequence[Any]) -> tuple[str, ...]:
    """Return what the networks are called; raise SpecError unless they can be told apart."""
    from pellucid.spec import echo, read_sequence
    from pellucid.tasks.training import network_name

    found = tuple(network_name(task) for task in networks) if given is None else read_sequence(given)
    if len(found) != len(networks):
        raise SpecError(f"--names names {len(found)} networks, but {len(networks)} are given")
    twice = next((name for place, name in enumerate(found) if name in found[:place]), None)
    if twice is not None:
        raise SpecError(
            f"two networks are called {echo(twice)}; tell them apart by --names, such as --names first,second"
        )
    return found


def _fitting(split: Any, labels: Sequence[str], networks: Sequence[Any]) -> None:
    """Refuse, before anything long, images without labels and checkpoints that were made for other images."""
    from pellucid.cli.networks import own_shape

    if not split.labelled:
        raise DataError(f"{split.name} has no labels: what a network recognises is measured on labelled images")
    for label, network in zip(labels, networks):
        shape = own_shape(network)
        if shape is not None and shape != tuple(split.shape):
            raise DataError(f"{label} was made for images {shape}; {split.name} has images {tuple(split.shape)}")
