"""pellucid stylize fit | apply | sheet | measure."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from pellucid.cli.common import Common, Place, export
from pellucid.cli.fields import apply_words, split_words
from pellucid.cli.painting import Brush, data_table, distinct, painted, pixels_of, png, styles_table, without_part
from pellucid.errors import SpecError

stylize = App(
    name="stylize",
    help="Paint images in the style of others (AdaIN): texture goes, contours stay.",
    help_format="plaintext",
    help_epilogue="",
)

Words = Annotated[
    str,
    Parameter(
        help="An image or a folder of images, unless --data names a data set; and fields: data.size=64,64, "
        "styles.part=test, alpha=0.5."
    ),
]
Data = Annotated[str | None, Parameter(help="A data set (pellucid list data), instead of a path.")]
PartOf = Annotated[str, Parameter(help="train, validation or test.")]
Images = Annotated[str, Parameter(help="Only the first so many images.")]
Seed = Annotated[str, Parameter(help="Seed of everything random.")]


@stylize.command
def fit(
    *words: Annotated[
        str, Parameter(help="Fields: content.size=64,64, width=32, style_weight=10, encoder_steps=800 ...")
    ],
    content: Annotated[str, Parameter(help="A data set (pellucid list data) whose images are to be painted.")],
    styles: Annotated[str, Parameter(help="Paintings, as the other commands take them: a folder or a data set.")],
    steps: Annotated[str, Parameter(help="Steps of the decoder.")] = "2000",
    style_size: Annotated[str, Parameter(help="Side of the paintings of a folder, in pixels.")] = "224",
    seed: Seed = "0",
    out: Annotated[Place, Parameter(help="The file for the stylizer.")] = Path("stylizer.safetensors"),
    common: Common = Common(),
) -> None:
    """Fit a compact stylizer on your own images and paintings, where VGG-19 and its decoder are not at hand.

    Both data sets' training parts are learned from. The file says what it is, and everything made with it says so too.
    The same command goes on after an interruption. The file's path is printed last.
    """
    from pellucid.spec import from_dict
    from pellucid.transforms.stylize import FITTED

    paths, fields = split_words(words)
    if paths:
        raise SpecError(f"{paths[0]} belongs to nothing here; name the images by --content")
    contents, fields = data_table("content", content, fields)
    paintings, fields = styles_table(styles, style_size, fields)
    table = {"task": "fit_stylizer", "content": contents, "styles": paintings, "steps": steps, "seed": seed}
    common.open_store()  # which says where data sets are
    task = from_dict(apply_words({"fit": table}, fields, "fit")["fit"], "task")
    result = common.run(task)
    export(out.parent, {out.name: (result.folder / FITTED).read_bytes()})
    last = result.json("fitted.json")["history"][-1]
    path = str(out.resolve())
    common.say(
        {"stylizer": path, "called": task.called, "sha256": result.meta["files"][FITTED], "losses": last}
        | {"digest": result.meta["digest"], "meta": result.meta},
        [task.called, f"content loss {last['content']:.3f}, style loss {last['style']:.3f}", path],
    )


@stylize.command
def apply(
    *words: Words,
    data: Data = None,
    brush: Brush,
    part: PartOf = "test",
    images: Images = "16",
    seed: Seed = "0",
    out: Annotated[Place, Parameter(help="Folder for the painted images.")] = Path("stylised"),
    common: Common = Common(),
) -> None:
    """Paint images, each in a style drawn at random, and write them as PNG files under their own names or numbers.

    stylised.json beside them says which stylizer painted them, and which painting's style each has.
    """
    given = [Path(path) for path in split_words(words)[0]]
    if out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in given}:
        raise SpecError(f"--out {out} is the folder of the images themselves, which it would write over")
    result = painted(words, data, brush, {"part": part, "images": images, "seed": seed}, common)
    told, tensors = result.json("stylised.json"), result.tensors("stylised.safetensors")
    names = told["names"] or [f"{row:05d}" for row in range(len(tensors["stylised"]))]
    files = dict(zip(distinct(names), map(png, tensors["stylised"])))
    export(out, files | {"stylised.json": (result.folder / "stylised.json").read_bytes()})
    path = str(out.resolve())
    common.say({"folder": path, "images": len(names), **told, "meta": result.meta}, [told["stylizer"], path])


@stylize.command
def sheet(
    *words: Words,
    data: Data = None,
    brush: Brush,
    part: PartOf = "test",
    images: Images = "12",
    seed: Seed = "0",
    out: Annotated[Place, Parameter(help="The file for the sheet.")] = Path("sheet.png"),
    common: Common = Common(),
) -> None:
    """Draw a contact sheet: images, the paintings whose style they take, and the images painted."""
    from pellucid.report import Gallery, GalleryRow, Picture, to_png

    result = painted(words, data, brush, {"part": part, "images": images, "seed": seed}, common)
    told, tensors = result.json("stylised.json"), result.tensors("stylised.safetensors")
    rows = tuple(
        GalleryRow(title, tuple(Picture("", pixels_of(image)) for image in tensors[key]), note)
        for title, key, note in (
            ("original", "images", ""),
            ("painting", "paintings", ""),
            ("stylised", "stylised", told["stylizer"].replace("weights sha256 ", "")),
        )
    )
    export(out.parent, {out.name: to_png(Gallery(told["stylizer"], rows))})
    path = str(out.resolve())
    common.say({"sheet": path, **told, "meta": result.meta}, [told["stylizer"], path])


@stylize.command
def measure(
    *words: Annotated[str, Parameter(help="Fields: data.size=64,64, styles.path=..., alpha=0.5.")],
    data: Annotated[str, Parameter(help="A data set (pellucid list data).")],
    brush: Brush,
    painted: Annotated[
        str, Parameter(help="Parts of the styles to measure on: those that a stylizer was not fitted on.")
    ] = "validation,test",
    network: Annotated[
        str | None, Parameter(help="A checkpoint folder (or package.module:attribute) that measures as well.")
    ] = None,
    layers: Annotated[str, Parameter(help="Its layers, with commas between.")] = "layer1,layer2,layer3",
    vgg: Annotated[
        str | None,
        Parameter(help="torchvision's file of VGG-19, which measures as well; a path or hf://OWNER/NAME/FILE."),
    ] = None,
    part: PartOf = "test",
    images: Images = "100",
    seed: Seed = "0",
    out: Annotated[Place, Parameter(help="The file for the numbers.")] = Path("measurement.json"),
    common: Common = Common(),
) -> None:
    """Measure how much nearer stylising brings images to paintings than matching colours does, and the edges it leaves.

    Every image is painted in the style of every painting. Distances are those of Gram matrices of networks that had no
    part in the stylizer: fixed random filters, and --network. `left` is the share of the image's own distance.
    """
    import json

    from pellucid.cli.networks import named_networks
    from pellucid.spec import from_dict

    paths, fields = split_words(words)
    if paths:
        raise SpecError(f"{paths[0]} belongs to nothing here; name the images by --data")
    data_set, fields = data_table("data", data, fields)
    paintings, fields = brush.paintings(fields)
    networks, fields = named_networks([] if network is None else [network], fields)
    table = {"task": "style_measure", "data": data_set, "part": part, "images": images, "seed": seed}
    table |= {"paintings": without_part(paintings), "painted": painted, "layers": layers, "vgg": vgg or ""}
    common.open_store()
    table["stylize"] = brush.table(paintings, fields)
    result = common.run(from_dict(table | {"network": next(iter(networks), None)}, "task"))
    found = result.json("measurement.json")
    export(out.parent, {out.name: (json.dumps(found, indent=1) + "\n").encode()})
    path = str(out.resolve())
    common.say({"measurement": path, **found, "meta": result.meta}, [*_lines(found), path])


def _lines(found: dict[str, Any]) -> list[str]:
    """Return what was measured, for people."""
    lines = [found["stylizer"], f"{found['images']} images in the style of {found['paintings']} paintings"]
    for name in found["layers"]:
        left = {key: f"{row['value']:.0%}" for key, row in found[name]["left"].items()}
        lines.append(
            f"{name}: {left['stylised']} of the distance are left (colours matched: {left['moments']} by mean and "
            f"deviation, {left['covariance']} by covariance)"
        )
    return [*lines, f"edges: correlation {found['edges']['stylised']['value']:.2f} with the original's"]
