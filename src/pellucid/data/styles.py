"""Paintings, or any other images that give a style: a folder of them, whatever its form."""

from dataclasses import dataclass, field
from pathlib import Path

from pellucid.data.assemble import collect, usable
from pellucid.data.folder import Side
from pellucid.data.location import Location, files_below, find_parquet, locate
from pellucid.data.source import Source, Unreadable
from pellucid.data.split import Split, check_part
from pellucid.errors import DataError
from pellucid.spec import NOT_HASHED, Count, register


@register("data", "style_images")
@dataclass(frozen=True, kw_only=True)
class StyleImages:
    """All images below a folder, or in its parquet files: the largest centre square of each, resized to `size`.

    RGB (N, 3, size, size), in the order of their paths, without labels; every part is all of them. Images that cannot
    be read are left out and named in `skipped` (unreadable=refuse: refused), as are those with a side below `least`.
    Every image is read once to find out. `limit` keeps the first n.

    Source: Geirhos et al. 2019 for the Painter by Numbers paintings (size 224, least 224), used so by Zhang & Zhu 2019.
    Deviations: least has no default, since a folder of small paintings would be empty otherwise.
    """

    path: str
    size: Side = 224
    least: Count | None = None
    limit: Count | None = None
    unreadable: Unreadable = field(default="skip", metadata=NOT_HASHED)  # refused, or the same images

    def load(self, part: str) -> Split:
        """Return the images; every part is all of them. Raises DataError if there are none, or too few."""
        check_part(part)
        source, location = self._source(), self._location()
        rows = usable(source, location, "train")[0]
        words = f"all {len(rows):,} images in the order of their paths, the same for every part"
        return collect(source, location, part, "train", rows, words, self.limit)

    def _source(self) -> Source:
        return Source(
            name=Path(self.path).name or "style_images",
            channels=3,
            size=(self.size, self.size),
            fit="centre",
            labelled=False,
            unreadable=self.unreadable,
            least=self.least or 0,
        )

    def _location(self) -> Location:
        """Return all files as one split."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise DataError(f"the folder {self.path!r} does not exist")
        parquet = find_parquet(folder, self._source())
        if parquet:
            files = tuple(file for split in parquet.values() for file in split)
            return locate("parquet", {"train": files}, f"folder {self.path}")
        if images := files_below(folder):
            return locate("images", {"train": images}, f"folder {self.path}")
        raise DataError(f"the folder {self.path!r} holds neither images nor parquet files named by split")
