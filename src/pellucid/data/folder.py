"""Any folder of images as a data set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Le
from pydantic import BeforeValidator

from pellucid.data.assemble import assemble
from pellucid.data.image import Fit
from pellucid.data.location import Location, find_parquet, locate
from pellucid.data.source import Source, Unreadable
from pellucid.data.split import Split, check_part
from pellucid.data.tree import find_tree
from pellucid.errors import DataError
from pellucid.spec import NOT_HASHED, Count, Flag, read_sequence, register

Side = Annotated[Count, Le(10_000)]  # pixels
Size = Annotated[tuple[Side, Side], BeforeValidator(read_sequence)]


@register("data", "folder")
@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of images: parquet files named by split, or a tree with one folder per class.

    Splits are called train, validation (val, valid) and test; a tree may have them as folders above its
    classes. What is missing is cut from what is there, and `cut` says how. Images (N, C, H, W) have one
    channel if all are grey, else three. `size` (height, width) resizes them, stretched or cropped as `fit`
    says; without it they must have one size. `group` names a parquet column whose equal neighbours a cut in
    order keeps together. `labelled` False takes images without class labels: all get label 0. `train`,
    `validation` and `test` keep the first n images of a part. `load` raises DataError for anything missing or
    unreadable; unreadable=skip leaves out images that cannot be read, after reading every one of them once, and says
    which. Source: the layouts of the hub's parquet files and of image folders as commonly used.
    """

    path: str
    size: Size | None = None
    fit: Fit = "stretch"
    group: str | None = None
    labelled: Flag = True
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    unreadable: Unreadable = field(default="refuse", metadata=NOT_HASHED)  # refused, or the same images

    def load(self, part: str) -> Split:
        """Return a part of the folder."""
        check_part(part)
        return assemble(self._source(), self._location(), part, getattr(self, part))

    def _source(self) -> Source:
        return Source(
            name=Path(self.path).name,
            validation=("validation", "val", "valid"),
            size=self.size,
            fit=self.fit,
            group=self.group,
            labelled=self.labelled,
            unreadable=self.unreadable,
        )

    def _location(self) -> Location:
        folder, source = Path(self.path).expanduser(), self._source()
        if not folder.is_dir():
            raise DataError(f"the folder {self.path!r} does not exist")
        if parquet := find_parquet(folder, source):
            return locate("parquet", parquet, f"folder {self.path}")
        if tree := find_tree(folder, source, f"folder {self.path}"):
            return tree
        raise DataError(
            f"the folder {self.path!r} holds neither parquet files named by split (train-*.parquet) "
            "nor images in one folder per class"
        )
