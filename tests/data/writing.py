"""Small data sets written into a folder, in the layouts that the loaders read."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (6, 5), form: str = "PNG") -> bytes:
    """Encoded noise; size is (height, width)."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pixels_of(data: bytes, mode: str = "RGB") -> np.ndarray:
    """Pixels (C, H, W) of an encoded image."""
    array = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | None] | None,
    names: Sequence[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    extra: dict[str, Sequence[Any]] | None = None,
    plain: bool = False,
    row_group: int = 4,
) -> Path:
    """Write one parquet file; `names` adds the metadata that hub files carry, `plain` stores bare bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = list(images) if plain else [{"bytes": data, "path": None} for data in images]
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content: dict[str, Any] = {key: pa.array(list(values)) for key, values in (extra or {}).items()}
    content[columns[0]] = pa.array(held, kind)
    if labels is not None:
        content[columns[1]] = pa.array(list(labels), pa.int64())
    table = pa.table(content)
    if names is not None:
        features = {
            columns[0]: {"_type": "Image"},
            columns[1]: {"_type": "ClassLabel", "names": list(names)},
        }
        said = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
    pq.write_table(table, path, row_group_size=row_group)
    return path


def fill(
    folder: Path, split: str, n: int, classes: int = 2, mode: str = "RGB", seed: int = 0, **more: Any
) -> list[bytes]:
    """Write a split of n images with labels 0, 1, ..., 0, 1, ... and return its images."""
    images = [picture(1000 * seed + i, mode) for i in range(n)]
    write(folder / f"{split}-00000-of-00001.parquet", images, [i % classes for i in range(n)], **more)
    return images
