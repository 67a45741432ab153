"""What the named data sets have in common: a local folder first, the hub otherwise."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from pellucid.data.assemble import assemble
from pellucid.data.hub import advice, download
from pellucid.data.location import Location, find_parquet, locate
from pellucid.data.root import data_root
from pellucid.data.source import Role, Source, Unreadable
from pellucid.data.split import Split, check_part
from pellucid.data.tree import find_tree
from pellucid.errors import DataError
from pellucid.spec import NOT_HASHED, Count


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set that is published under a name.

    `train`, `validation` and `test` keep the first n images of a part. `revision` pins a state of the hub's
    files. Files are looked for in the data root, in the folder of the set's name, and fetched otherwise.
    A set with options says by `described` what they make of its source.
    """

    source: ClassVar[Source]

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    revision: str | None = None

    def load(self, part: str) -> Split:
        """Return a part of the set; raise DataError if it is missing, unreadable or too small."""
        check_part(part)
        source = self.described()
        location = local(source) or from_hub(source, needed(source, part), self.revision)
        return assemble(source, location, part, getattr(self, part))

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return self.source


@dataclass(frozen=True, kw_only=True)
class Sifted(Published):
    """A published set of which images that cannot be read may be skipped.

    unreadable=skip reads every image once, and names in `skipped` those that are left out.
    """

    unreadable: Unreadable = field(default="refuse", metadata=NOT_HASHED)  # refused, or the same images

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return replace(self.source, unreadable=self.unreadable)


def local(source: Source) -> Location | None:
    """Return the set's files in the data root; None if they are not there."""
    root = data_root()
    if root is None:
        return None
    for name in source.homes:
        if found := find_parquet(root / name, source):
            return locate("parquet", found, f"local folder {name}: {_names(found)}")
        if source.tree and (tree := find_tree(root / name, source, f"local folder {name}: one folder per class")):
            return tree
    return None


def needed(source: Source, part: str) -> tuple[Role, ...]:
    """Return the published splits that a part is made from."""
    return ("train",) if part == "validation" and not source.validation else (part,)


def from_hub(source: Source, roles: tuple[Role, ...], revision: str | None) -> Location:
    """Return the files of some published splits, fetched from the hub."""
    folder, resolved = download(source, roles, revision)
    found = {role: files for role, files in find_parquet(folder, source).items() if role in roles}
    if missing := [role for role in roles if role not in found]:
        raise DataError(f"{source.hub} has no parquet files of its {missing[0]} split on the hub: {advice(source)}")
    published: tuple[Role, ...] = ("train", "validation", "test") if source.validation else ("train", "test")
    return locate("parquet", found, f"{source.hub}@{resolved}: {_names(found)}", published)


def _names(found: dict[Role, tuple[Path, ...]]) -> str:
    names = [path.name for files in found.values() for path in files]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} .. {names[-1]} ({len(names)} files)"
