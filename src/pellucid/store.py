"""Where results live: one folder per task, found by its digest, complete or not there at all.

<root>/<task>/<digest>/     finished results: the task's files and meta.json with a digest of each
<root>/scratch/<digest>/    parts of unfinished work; what is there is not computed again
<root>/locks/<digest>.lock  held by the process that works on a task; freed by the system when it dies
<root>/data/<digest>.json   the sha256 of the images that results were made from
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from pellucid.errors import DataError, StoreError
from pellucid.spec import digest, name_of, to_dict

META = "meta.json"
OWN_FOLDERS = ("scratch", "locks", "data")


@contextlib.contextmanager
def explained(what: Path) -> Iterator[None]:
    """Turn a full disk, a read-only mount and the like into a StoreError that says so in a sentence."""
    reasons = {
        errno.ENAMETOOLONG: "a name is too long",
        errno.EISDIR: "a folder is in the way",
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "it is mounted read-only",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
        errno.ENOTDIR: "a file is in the way",
        errno.EEXIST: "a file is in the way",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise StoreError(
            f"the store {what} cannot be written: {reasons[error.errno]}; what was finished is kept, choose another "
            "place with --store or make room, and run the same command again to go on"
        ) from None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file that is either complete or not there: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name, since containers that share a store may share process numbers.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power loss, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is either complete or not there."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=True) + "\n")


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write tensors (safetensors) in a file that is either complete or not there."""
    write_atomic(path, save_tensors({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, notes))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors; raise StoreError if the file is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and run again") from None


def read_json(path: Path) -> Any:
    """Read JSON; raise StoreError if the file is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and run again") from None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Result:
    """A finished task: its folder and what was recorded beside it."""

    folder: Path
    meta: dict[str, Any]

    def json(self, name: str) -> Any:
        """Return the content of one of its JSON files."""
        return json.loads((self.folder / name).read_text())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the content of one of its safetensors files."""
        return read_tensors(self.folder / name)


class Store:
    """Results on disk, addressed by what made them."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()

    def prepare(self) -> None:
        """Make the folders and see that they can be written; raise StoreError if not."""
        try:
            with explained(self.root):
                for name in OWN_FOLDERS:
                    (self.root / name).mkdir(parents=True, exist_ok=True)
                probe = self.root / "scratch" / f".writable-{os.getpid()}"
                write_atomic(probe, b"")
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be made: {error.strerror}; choose another with --store"
            ) from None

    def withdraw(self) -> None:
        """Remove what a refused run left in a store that it made, unless a result or a part of one is in it.

        Copies of checkpoints, what is known of imported networks, and notes about data are none. Where another run is
        at work nothing is removed.
        """
        if not self.root.is_dir() or any(path.is_file() for path in (self.root / "scratch").rglob("*")):
            return
        if any(path.name not in (*OWN_FOLDERS, "checkpoint", "imported_network") for path in self.root.iterdir()):
            return
        with contextlib.ExitStack() as held:
            try:
                for path in (self.root / "locks").glob("*.lock"):
                    held.enter_context(FileLock(path, timeout=0))
            except Timeout:
                return
            shutil.rmtree(self.root, ignore_errors=True)

    def folder(self, task: Any) -> Path:
        """Return the folder where the task's result is, or will be."""
        return self.root / name_of(task) / digest(task)

    def scratch(self, task: Any) -> Path:
        """Return the folder of the task's unfinished parts."""
        return self.root / "scratch" / digest(task)

    def has(self, task: Any) -> bool:
        """Say whether the task is finished."""
        return (self.folder(task) / META).is_file()

    def open(self, task: Any) -> Result:
        """Return a finished result; raise StoreError if it is missing or a file of it is missing or was changed."""
        folder = self.folder(task)
        try:
            meta = json.loads((folder / META).read_text())
            files = dict(meta["files"])
            if meta["digest"] != digest(task):
                raise KeyError("another task's result")
        except FileNotFoundError:
            raise StoreError(f"{name_of(task)} {digest(task)[:12]} is not in the store {self.root}") from None
        except (ValueError, KeyError, TypeError):  # no text, no JSON, or not what `commit` wrote
            raise StoreError(f"{folder / META} is damaged; delete the folder {folder} and run again") from None
        for name, expected in files.items():
            if not (folder / name).is_file() or file_digest(folder / name) != expected:
                raise StoreError(f"{folder / name} is missing or was changed; delete the folder {folder} and run again")
        return Result(folder, meta)

    def commit(self, task: Any, meta: dict[str, Any], files: list[str]) -> Result:
        """Move the named scratch files into place as the finished result, by one rename."""
        scratch, folder = self.scratch(task), self.folder(task)
        listed = {name: file_digest(scratch / name) for name in files}
        staged = scratch / "result"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        for name in files:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            _sync_file(scratch / name)
            os.replace(scratch / name, staged / name)  # a kill here costs no more than putting the parts together
        write_json(staged / META, {"task": to_dict(task), "digest": digest(task), **meta, "files": listed})
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not self.has(task):
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(staged, folder)
            _sync_folder(folder.parent)
        shutil.rmtree(scratch, ignore_errors=True)
        return self.open(task)

    @contextlib.contextmanager
    def claim(self, task: Any) -> Iterator[bool]:
        """Hold the task's lock inside the block if it is free; yields whether it was."""
        lock = FileLock(self.root / "locks" / f"{digest(task)}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def pin_data(self, spec: Any, part: str, sha256: str) -> None:
        """Record which images a description stood for; raise DataError if they are not those of earlier results."""
        path = self.root / "data" / f"{digest(spec)}-{part}.json"
        if path.is_file():
            known = read_json(path).get("sha256", "")
            if known != sha256:
                raise DataError(
                    f"the {part} images of {name_of(spec)} are not those that results in {self.root} were made from "
                    f"(sha256 {sha256[:12]} now, {known[:12]} then); use another store, or the old images"
                )
        else:
            write_json(path, {"data": to_dict(spec), "part": part, "sha256": sha256})
