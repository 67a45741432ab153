"""What the named data sets have in common: a local folder first, the hub otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pellucid.data.assemble import assemble
from pellucid.data.hub import advice, download
from pellucid.data.location import Location, find_parquet, locate
from pellucid.data.root import data_root
from pellucid.data.source import Role, Source
from pellucid.data.split import Split, check_part
from pellucid.errors import DataError
from pellucid.spec import Count


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set that is published under a name.

    `train`, `validation` and `test` keep the first n images of a part. `revision` pins a state of the hub's
    files. Files are looked for in the data root, in the folder of the set's name, and fetched otherwise.
    """

    source: ClassVar[Source]

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    revision: str | None = None

    def load(self, part: str) -> Split:
        """Return a part of the set; raise DataError if it is missing, unreadable or too small."""
        check_part(part)
        location = local(self.source) or from_hub(self.source, part, self.revision)
        return assemble(self.source, location, part, getattr(self, part))


def local(source: Source) -> Location | None:
    """Return the set's files in the data root; None if they are not there."""
    root = data_root()
    for name in dict.fromkeys([source.name, source.name.replace("_", "-")]):
        if root is not None and (found := find_parquet(root / name, source)):
            return locate("parquet", found, f"local folder {name}: {_names(found)}")
    return None


def from_hub(source: Source, part: str, revision: str | None) -> Location:
    """Return the files that a part needs, fetched from the hub."""
    role: Role = "train" if part == "validation" and not source.validation else part
    folder, resolved = download(source, (role,), revision)
    found = {r: files for r, files in find_parquet(folder, source).items() if r == role}
    if not found:
        raise DataError(f"{source.hub} has no parquet files of its {role} split on the hub: {advice(source)}")
    published: tuple[Role, ...] = ("train", "validation", "test") if source.validation else ("train", "test")
    return locate("parquet", found, f"{source.hub}@{resolved}: {_names(found)}", published)


def _names(found: dict[Role, tuple[Path, ...]]) -> str:
    names = [path.name for files in found.values() for path in files]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} .. {names[-1]} ({len(names)} files)"
