"""What all commands share: where results and data are, where to compute, how to speak."""

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from pellucid.errors import StoreError

if TYPE_CHECKING:
    from pellucid.store import Result, Store
    from pellucid.tasks import Options


def _path(_: Any, tokens: Sequence[Any]) -> Path:
    if not tokens[0].value:
        raise ValueError("an empty path names no place")  # Path would take it for the working directory
    return Path(tokens[0].value)


Place = Annotated[Path, Parameter(converter=_path)]
AsJson = Annotated[bool, Parameter(help="Print the result as JSON.", negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    store: Annotated[Place | None, Parameter(help="Folder for results [./artifacts, or PELLUCID_STORE].")] = None
    data_root: Annotated[Place | None, Parameter(help="Folder with data sets [PELLUCID_DATA].")] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads [torch's choice]; results are equal to the bit at equal counts.")
    ] = None
    json: AsJson = False
    quiet: Annotated[bool, Parameter(help="Print no progress.", negative="")] = False

    def open_store(self) -> "Store":
        """Return the store, and point the data loaders at the data root."""
        from pellucid.data import set_data_root
        from pellucid.store import Store

        if self.data_root is not None:
            set_data_root(self.data_root)
        return Store(self.store or os.environ.get("PELLUCID_STORE") or "artifacts")

    def options(self, tensorboard: Path | None = None, asked: Any = None) -> "Options":
        """Return how to run; raise SpecError for a device that is not there."""
        from pellucid.tasks import Options

        return Options(self.device, self.threads, tensorboard=tensorboard, asked=asked)

    def run(self, task: Any, tensorboard: Path | None = None) -> "Result":
        """Compute what is missing of a task while showing progress."""
        from pellucid.cli.watch import watch_for
        from pellucid.tasks import run

        store, options = self.open_store(), self.options(tensorboard, task)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is something to put in order
        with watch_for(self.quiet) as watch:
            return run(task, store, options, watch)

    def say(self, result: dict[str, Any], lines: list[str] | None = None) -> None:
        """Print a result: as JSON if asked for, as lines for people otherwise."""
        if self.json:
            print(json.dumps(_strict(result), indent=1, allow_nan=False))
        for line in () if self.json else lines or ():
            print(line)


def _strict(value: Any) -> Any:
    """Return a value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def screen(stderr: bool = False) -> Console:
    """Return the console for tables (stdout) or progress (stderr)."""
    return Console(stderr=stderr, highlight=False)


def export(folder: Path, files: dict[str, bytes]) -> None:
    """Write files for people to open, unless they are there already; raise StoreError where that is impossible."""
    from pellucid.store import write_atomic

    try:
        for name, content in files.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                write_atomic(path, content)
    except OSError as error:
        in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
        raise StoreError(
            f"--out {folder} cannot be written ({'a file is in the way' if in_the_way else error.strerror}); "
            "the result is kept: run the same command with another folder"
        ) from None


def interactive() -> bool:
    """Say whether somebody watches a terminal."""
    return sys.stderr.isatty()
