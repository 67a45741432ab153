"""One published split as it is stored: encoded images, labels, class names."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.data.source import Source
from pellucid.errors import DataError


@dataclass(frozen=True)
class Table:
    """Encoded images as an Arrow column of bytes (or `Files`), int64 labels (N,), class names and groups if any.

    `where` names the images in errors: one name for all, or one per image.
    """

    images: Any
    labels: Tensor
    classes: tuple[str, ...]
    group: Tensor | None
    where: tuple[str, ...]


def read_parquet(files: Sequence[Path], source: Source, where: str) -> Table:
    """Read the split that the files make up; raise DataError for unreadable files and missing columns."""
    pieces = [piece for path in files for piece in _pieces(path, source)]
    if not pieces:
        raise DataError(f"{where} is empty")
    images = pa.chunked_array([chunk for piece in pieces for chunk in piece.images.chunks], pa.large_binary())
    if images.null_count and source.unreadable == "refuse":
        raise DataError(f"{where} has images without bytes: the files must hold the encoded images")
    groups = [piece.group for piece in pieces if piece.group is not None]
    return Table(
        images,
        labels=torch.cat([piece.labels for piece in pieces]),
        classes=pieces[0].classes,
        group=torch.cat(groups) if len(groups) == len(pieces) else None,
        where=(where,),
    )


def _pieces(path: Path, source: Source) -> Iterator[Table]:
    """Yield a file's row groups; one at a time, so that images outside the superclasses are dropped early."""
    try:
        file = pq.ParquetFile(path)
        image, label, classes = columns(file.schema_arrow, path.name, source)
        group = source.group if source.group in file.schema_arrow.names else None
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=[name for name in (image, label, group) if name])
            labels = _integers(rows, label, path.name) if label else torch.zeros(len(rows), dtype=torch.int64)
            if source.superclasses:
                labels = superclass(labels, source)
                rows, labels = rows.filter(pa.array((labels >= 0).numpy())), labels[labels >= 0]
            groups = _integers(rows, group, path.name) if group else None
            yield Table(_bytes(rows.column(image)), labels, classes, groups, (path.name,))
    except (pa.ArrowException, OSError) as error:
        why = type(error).__name__
        raise DataError(f"{path} is not a readable parquet file ({why}): fetch it again") from None


def columns(schema: Any, name: str, source: Source) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the image column, the label column and the class names of a schema.

    The first Image and the first ClassLabel feature where the file says what its columns mean; else the first
    column of bytes and the first of whole numbers that is not the group. The source's own label column comes before
    both. Raises DataError if there is none.
    """
    features = _features(schema)
    image = next((c for c, f in features.items() if f.get("_type") == "Image" and c in schema.names), None)
    label = next((c for c, f in features.items() if f.get("_type") == "ClassLabel" and c in schema.names), None)
    if source.label:  # other columns of labels are of other classes
        label = next((name for name in (source.label, "label") if name in schema.names), None)
    classes = tuple(str(part) for part in features.get(label, {}).get("names") or ()) if label else ()
    image = image or next((field.name for field in schema if _holds_bytes(field.type)), None)
    numbers = [field.name for field in schema if pa.types.is_integer(field.type) and field.name != source.group]
    label = label or (None if source.label else next(iter(numbers), None))
    if image is None or (source.labelled and label is None):
        needed = "column of encoded images" if image is None else "column of class labels"
        raise DataError(f"{name} has no {needed}; its columns are {', '.join(schema.names)}")
    return (image, label, classes) if source.labelled else (image, None, ())


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _bytes(column: Any) -> Any:
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return column.cast(pa.large_binary())  # 64-bit offsets: 32-bit ones end at 2 GiB


def _integers(rows: Any, name: str, file: str) -> Tensor:
    column = rows.column(name)
    if column.null_count:
        raise DataError(f"{file} has images without a value in the column {name}")
    return torch.from_numpy(column.cast(pa.int64()).to_numpy().copy())


def superclass(labels: Tensor, source: Source) -> Tensor:
    """Return the number of the superclass of each published label, -1 outside all of them."""
    ids = torch.full_like(labels, -1)
    for number, (_, low, high) in enumerate(source.superclasses):
        ids[(labels >= low) & (labels <= high)] = number
    return ids


@dataclass(frozen=True)
class Files:
    """Stands in for an Arrow column of encoded images: a file is read when its bytes are asked for."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> "File":
        return File(self.paths[row])


@dataclass(frozen=True)
class File:
    """One cell of `Files`."""

    path: Path

    def as_py(self) -> bytes:
        """Return the file's bytes; raise DataError if it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({type(error).__name__})") from None


def read_images(files: Sequence[Path], names: Sequence[str]) -> Table:
    """Read a split of a tree with one folder per class; `names` are the class folders of all splits.

    Without names the images have no labels: all get label 0. The files themselves are read when they are asked for.
    """
    numbers = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([numbers[path.parent.name] if names else 0 for path in files], dtype=torch.int64)
    return Table(Files(tuple(files)), labels, tuple(names), None, tuple(str(path) for path in files))
