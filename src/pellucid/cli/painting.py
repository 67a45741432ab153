"""What the commands of `pellucid stylize` share: the tables of what they name, and pictures as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common
from pellucid.cli.fields import apply_words, split_words
from pellucid.errors import SpecError


@Parameter(name="*")
@dataclass(frozen=True)
class Brush:
    """What paints: the paintings, and the stylizer's files."""

    styles: Annotated[
        str,
        Parameter(
            help="A folder of paintings (of each the largest centre square; what cannot be read is skipped), or a data "
            "set with its fields: folder styles.path=DIR styles.size=192,192 styles.fit=crop styles.labelled=no"
        ),
    ]
    weights: Annotated[
        str,
        Parameter(
            help="The file of pellucid stylize fit, or, with --decoder, of the normalised VGG-19; a path or "
            "hf://OWNER/NAME/FILE."
        ),
    ]
    decoder: Annotated[str | None, Parameter(help="The file of VGG-19's decoder.")] = None
    style_size: Annotated[
        str, Parameter(help="Side of the paintings of a folder, in pixels: the larger, the finer texture.")
    ] = "224"

    def paintings(self, fields: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the table of the paintings with their fields, and the other words."""
        return styles_table(self.styles, self.style_size, fields)

    def table(self, paintings: dict[str, Any], fields: Sequence[str]) -> Any:
        """Return the transformation; fields that are left, such as alpha=0.5, are its own."""
        table: dict[str, Any] = {"transform": "stylize", "weights": self.weights, "decoder": self.decoder or ""}
        table |= {"part": paintings.get("part", "train"), "styles": without_part(paintings)}
        return apply_words({"stylize": table}, fields, "stylize")["stylize"]


def painted(words: Sequence[str], data: str | None, brush: Brush, chosen: dict[str, str], common: Common) -> Any:
    """Return the result of painting what a command names; `chosen` are part, images and seed."""
    from pellucid.spec import from_dict

    paths, fields = split_words(words)
    if len(paths) + (data is not None) != 1:
        raise SpecError("pellucid stylize needs one path of an image or a folder, or --data NAME")
    if data is None:
        table, fields = _set("data", {"data": "pictures", "path": paths[0], "channels": 3}, fields)
    else:
        table, fields = data_table("data", data, fields)
    paintings, fields = brush.paintings(fields)
    common.open_store()  # which says where data sets are
    asked = {"task": "stylised", "stylize": brush.table(paintings, fields), "data": table, **chosen}
    return common.run(from_dict(asked, "task"))


def without_part(paintings: dict[str, Any]) -> dict[str, Any]:
    """Return the table of the paintings' data set, of which a part is named beside it."""
    return {key: value for key, value in paintings.items() if key != "part"}


def data_table(key: str, name: str, fields: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a data set with its fields, content.size=64,64, and the other words."""
    return _set(key, {"data": name}, fields)


def styles_table(place: str, size: str, fields: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the table of the paintings, of a folder or a data set; `part` in it says which of its parts."""
    folder = Path(place).expanduser().is_dir()
    if "/" in place and not folder:
        raise SpecError(f"there is no folder {place} of paintings")
    table: dict[str, Any] = {"data": "style_images", "path": place, "size": size} if folder else {"data": place}
    return _set("styles", table, fields)


def _set(key: str, table: dict[str, Any], fields: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    own = [word for word in fields if word.startswith(f"{key}.")]
    return apply_words({key: table}, own, key)[key], [word for word in fields if word not in own]


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names of PNG files for images: their own, with folders, endings and numbers where they would be one.

    >>> distinct(["a.jpg", "b/c.jpg", "b.png", "b.bmp", "x/y.gif", "x-y.gif"])
    ['a.png', 'b-c.png', 'b.png.png', 'b.bmp.png', 'x-y.gif.png', 'x-y.gif-2.png']
    """
    short = [str(Path(name).with_suffix("")).replace("/", "-") for name in names]
    full = [a if short.count(a) == 1 else name.replace("/", "-") for a, name in zip(short, names)]
    again = [full[:place].count(name) for place, name in enumerate(full)]
    return [f"{name}{f'-{number + 1}' if number else ''}.png" for name, number in zip(full, again)]


def pixels_of(image: Any) -> Any:
    """Return an image (C, H, W) as an array (H, W, C)."""
    return image.permute(1, 2, 0).numpy()


def png(image: Any) -> bytes:
    """Return an image (C, H, W) in [0, 1] as the bytes of a PNG, a pixel for a pixel."""
    import io

    from PIL import Image

    from pellucid.report import Picture
    from pellucid.report.pictures import pixels

    out = io.BytesIO()
    Image.fromarray(pixels(Picture("", pixels_of(image)))).save(out, format="PNG", optimize=True)
    return out.getvalue()
