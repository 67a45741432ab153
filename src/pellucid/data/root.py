"""Where data sets lie on this machine: the environment variable PELLUCID_DATA."""

import os
from pathlib import Path

from pellucid.errors import DataError

VARIABLE = "PELLUCID_DATA"


def set_data_root(path: str | Path | None) -> None:
    """Look for data sets in this folder from now on; None forgets it.

    Kept in the environment, so that worker processes started later look there too. Raises DataError if the
    folder does not exist.
    """
    if path is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(_existing(Path(path)).resolve())


def data_root() -> Path | None:
    """Return the folder of data sets, None if none is set; raise DataError if it does not exist."""
    text = os.environ.get(VARIABLE)
    return _existing(Path(text)) if text else None


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_dir():
        raise DataError(f"the folder of data sets {str(path)!r} does not exist: correct {VARIABLE} or --data-root")
    return path
