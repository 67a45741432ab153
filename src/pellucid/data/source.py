"""What is known of a published data set before it is read."""

from dataclasses import dataclass

from pellucid.data.image import Fit

Role = str  # which of the published splits: "train", "validation" or "test"


@dataclass(frozen=True)
class Source:
    """Where a data set is published, what its splits are called and how it is cut.

    `train`, `validation` and `test` list the published names of each split, the first one found counts.
    `channels` None means: 1 if all images are grey, else 3. `size` None means: all images have one size.
    `first` > 0 makes the first images of train the validation part; otherwise it is a tenth, drawn per class.
    `group` is a column whose equal neighbours stay together where one split has to be cut in three.
    `superclasses` are (name, lowest, highest) ranges of the published labels; images outside are left out.
    """

    name: str
    hub: str | None = None
    config: str | None = None
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ("test",)
    channels: int | None = None
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    classes: tuple[str, ...] = ()
    first: int = 0
    group: str | None = None
    superclasses: tuple[tuple[str, int, int], ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    labelled: bool = True

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the published names of a split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[role]
