"""What is known of a published data set before it is read."""

from dataclasses import dataclass
from typing import Literal

from pellucid.data.image import Fit

Role = str  # which of the published splits: "train", "validation", "test", or "extra"
Unreadable = Literal["refuse", "skip"]  # what to do with an image that cannot be read


@dataclass(frozen=True)
class Source:
    """Where a data set is published, what its splits are called and how it is cut.

    `train`, `validation`, `test` and `extra` list the published names of each split, the first one found counts.
    `folders` are further names of its folder in the data root. `tree` says that it may also lie there as image files,
    one folder per class.
    `channels` None means: 1 if all images are grey, else 3. `size` None means: all images have one size.
    `first` > 0 makes the first images of train the validation part; otherwise it is a tenth, drawn per class.
    `group` is a column whose equal neighbours stay together where one split has to be cut in three; with `fifth`, a
    seed, the test part is then a fifth of every class, rounded down.
    `label` is the column of labels where a file has several.
    `superclasses` are (name, lowest, highest) ranges of the published labels; images outside are left out.
    `unreadable` says what becomes of images that cannot be read; those with a side below `least` are left out.
    `margin` pixels on each side are kept for random crops, and left out otherwise.
    """

    name: str
    hub: str | None = None
    config: str | None = None
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ("test",)
    extra: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    tree: bool = False
    channels: int | None = None
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    classes: tuple[str, ...] = ()
    first: int = 0
    group: str | None = None
    fifth: int | None = None
    label: str | None = None
    superclasses: tuple[tuple[str, int, int], ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    labelled: bool = True
    unreadable: Unreadable = "refuse"
    least: int = 0
    margin: int = 0

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the published names of a split."""
        return {"train": self.train, "validation": self.validation, "test": self.test, "extra": self.extra}[role]

    @property
    def homes(self) -> tuple[str, ...]:
        """The names that its folder in the data root may have."""
        return tuple(dict.fromkeys((self.name, self.name.replace("_", "-"), *self.folders)))
