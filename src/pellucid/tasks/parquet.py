"""Per-example results as parquet: one row per image, judge and eps, readable by anything that reads tables."""

import io as bytesio
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.store import write_atomic


def write_columns(path: Path, columns: dict[str, Tensor]) -> None:
    """Write columns, each (rows,), as a parquet file that is either complete or not there."""
    buffer = bytesio.BytesIO()
    pq.write_table(pa.table({name: values.cpu().numpy() for name, values in columns.items()}), buffer)
    write_atomic(path, buffer.getvalue())


def read_columns(path: Path) -> dict[str, Tensor]:
    """Read the columns of a parquet file."""
    table = pq.read_table(path)
    return {name: torch.from_numpy(table[name].to_numpy().copy()) for name in table.column_names}


def write_predictions(path: Path, predictions: Tensor, labels: Tensor, epsilons: Sequence[float]) -> None:
    """Write predictions (1 + J, E, N) with labels (N,): columns index, label, judge, epsilon, prediction."""
    judges, count, n = predictions.shape
    columns = {
        "index": torch.arange(n).repeat(judges * count),
        "label": labels.to(torch.int16).repeat(judges * count),
        "judge": torch.arange(judges, dtype=torch.int16).repeat_interleave(count * n),
        "epsilon": torch.tensor(epsilons, dtype=torch.float64).repeat_interleave(n).repeat(judges),
        "prediction": predictions.flatten(),
    }
    write_columns(path, columns)


def write_sizes(path: Path, sizes: dict[str, Tensor], epsilons: Sequence[float]) -> None:
    """Write figures (E, N) of the perturbations: columns index, epsilon and one for each figure."""
    n = next(iter(sizes.values())).shape[1]
    columns = {
        "index": torch.arange(n).repeat(len(epsilons)),
        "epsilon": torch.tensor(epsilons, dtype=torch.float64).repeat_interleave(n),
    }
    write_columns(path, columns | {key: value.flatten() for key, value in sizes.items()})


def read_predictions(path: Path) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Read predictions (1 + J, E, N), labels (N,) and epsilons."""
    columns = read_columns(path)
    judges, n = int(columns["judge"].max()) + 1, int(columns["index"].max()) + 1
    predictions = columns["prediction"].view(judges, -1, n)
    epsilons = tuple(float(e) for e in columns["epsilon"].view(judges, -1, n)[0, :, 0])
    return predictions.long(), columns["label"][:n].long(), epsilons
