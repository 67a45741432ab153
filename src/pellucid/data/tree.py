"""Finding image files that lie in one folder per class."""

from pathlib import Path

from pellucid.data.location import ROLES, Location, is_image, locate
from pellucid.data.source import Role, Source
from pellucid.errors import DataError

IMAGENET = 1000  # class folders, whose alphabetical order numbers the classes


def find_tree(folder: Path, source: Source, words: str) -> Location | None:
    """Return the files of a tree with one folder per class, split folders above or not; None if there are none.

    Of a source with superclasses only the class folders that belong to one are looked into. Raises DataError if those
    are not ImageNet's 1,000, without which they cannot be numbered.
    """
    homes: dict[Role, Path] = {}
    for role in ROLES:
        home = next((folder / name for name in source.names(role) if (folder / name).is_dir()), None)
        if home is not None and _class_folders(home):
            homes[role] = home
    if not homes and folder.is_dir():
        homes = {"train": folder}
    if source.superclasses:
        return _superclass_tree(homes, source, words)
    found = {role: files for role, home in homes.items() if (files := _files(home, _class_folders(home)))}
    folders = sorted({path.parent.name for files in found.values() for path in files})
    return locate("images", found, words, folders=tuple(folders)) if found else None


def _superclass_tree(homes: dict[Role, Path], source: Source, words: str) -> Location | None:
    listed = {role: names for role, home in homes.items() if (names := _class_folders(home))}
    if not listed:
        return None
    folders = next(iter(listed.values()))
    if len(folders) != IMAGENET or any(names != folders for names in listed.values()):
        counts = ", ".join(f"{len(names):,} in {homes[role].name}" for role, names in listed.items())
        raise DataError(
            f"{source.name} numbers classes by the order of ImageNet's 1,000 class folders, the same for every split; "
            f"found {counts}"
        )
    wanted = [name for i, name in enumerate(folders) if any(low <= i <= high for _, low, high in source.superclasses)]
    found = {role: _files(homes[role], wanted) for role in listed}
    return locate("images", found, words, published=("train", "test"), folders=tuple(folders))


def _class_folders(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(home: Path, folders: list[str]) -> tuple[Path, ...]:
    return tuple(path for name in folders for path in sorted((home / name).iterdir()) if is_image(path))
