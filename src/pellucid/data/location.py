"""Finding the files of a data set in a folder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pellucid.data.source import Role, Source
from pellucid.errors import DataError

ROLES: tuple[Role, ...] = ("train", "validation", "test", "extra")
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class Location:
    """The files of a data set, per published split, with a stamp that changes when a file does.

    `published` names the splits that there are, of which only some may have been fetched; `folders` are the class
    folders of a tree, in the order of their labels.
    """

    layout: Literal["parquet", "images"]
    splits: tuple[tuple[Role, tuple[Path, ...]], ...]
    stamps: tuple[tuple[int, int], ...]
    source: str
    published: tuple[Role, ...]
    folders: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The published splits that were found."""
        return tuple(role for role, _ in self.splits)

    def files(self, role: Role) -> tuple[Path, ...]:
        """Return the files of one split; raise DataError if there are none."""
        if role not in self.roles:
            raise DataError(f"there is no {role} split in {self.source}")
        return dict(self.splits)[role]


def locate(
    layout: Literal["parquet", "images"],
    found: dict[Role, tuple[Path, ...]],
    source: str,
    published: tuple[Role, ...] | None = None,
    folders: tuple[str, ...] = (),
) -> Location:
    """Return the location of the files found, stamped with their sizes and times."""
    states = [path.stat() for files in found.values() for path in files]
    stamps = tuple((state.st_size, state.st_mtime_ns) for state in states)
    return Location(layout, tuple(found.items()), stamps, source, published or tuple(found), folders)


def find_parquet(folder: Path, source: Source) -> dict[Role, tuple[Path, ...]]:
    """Return the parquet files of each split in the folder itself, its config folder or `data`.

    Raises DataError if a split lacks some of its numbered files.
    """
    homes = [folder / source.config] if source.config else []
    for home in [*homes, folder / "data", folder]:
        found = {role: files for role in ROLES if (files := _split_files(home, source.names(role)))}
        if found:
            return found
    return {}


def _split_files(home: Path, names: Iterable[str]) -> tuple[Path, ...]:
    for name in names:
        for pattern in (f"{name}-*.parquet", f"{name}.parquet", f"{name}/*.parquet"):
            files = sorted(path for path in home.glob(pattern) if not path.name.startswith("."))
            if files:
                _check_complete(files)
                return tuple(files)
    return ()


def _check_complete(files: list[Path]) -> None:
    numbers = [SHARD.search(path.name) for path in files]
    if all(numbers):
        total = int(numbers[0][2])  # type: ignore[index]
        have = {int(number[1]) for number in numbers if number}
        missing = [f"{i:05d}-of-{total:05d}" for i in range(total) if i not in have]
        if missing:
            raise DataError(f"{files[0].parent} lacks the part {missing[0]} of {files[0].name}: fetch it again")


def files_below(folder: Path) -> tuple[Path, ...]:
    """Return all visible image files below a folder, in the order of their paths."""
    files = (file for file in folder.rglob("*") if is_image(file))
    return tuple(sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts)))


def is_image(path: Path) -> bool:
    """Say whether a path names a visible image file."""
    return path.suffix.lower() in IMAGES and not path.name.startswith(".") and path.is_file()
