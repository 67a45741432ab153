"""Fetching the parquet files of a published data set from the hub."""

import functools
from pathlib import Path

from pellucid.data.root import VARIABLE
from pellucid.data.source import Role, Source
from pellucid.errors import DataError


def advice(source: Source) -> str:
    """Return how one gets a data set, as the end of a sentence."""
    files = " and ".join(f"{source.name}/{names[0]}-*.parquet" for names in (source.train, source.test))
    tree = ", or its image files with one folder per class in place of them" if source.tree else ""
    return f"connect to the hub, or set {VARIABLE} or --data-root to a folder that holds {files}{tree}"


@functools.lru_cache(maxsize=64)
def download(source: Source, roles: tuple[Role, ...], revision: str | None) -> tuple[Path, str]:
    """Fetch some splits of a set; return the folder and the revision that the hub resolved.

    Files fetched before are not fetched again. Raises DataError, which says what to do, if that fails.
    """
    try:
        from huggingface_hub import snapshot_download  # late: only who downloads pays for the import

        folder = snapshot_download(
            source.hub or source.name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[pattern for role in roles for pattern in patterns(source, role)],
        )
    except Exception as error:  # the client raises errors of its own, of its HTTP library and of the system
        why = type(error).__name__
        raise DataError(f"{source.name} is not here and could not be downloaded ({why}): {advice(source)}") from error
    return Path(folder), Path(folder).name


def patterns(source: Source, role: Role) -> list[str]:
    """Return the file patterns under which the hub may keep a split."""
    homes = [f"{source.config}/"] if source.config else ["data/", ""]
    return [f"{home}{name}-*.parquet" for home in homes for name in source.names(role)]
