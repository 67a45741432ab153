"""Images that stay encoded until their rows are asked for, for sets too large to decode into memory."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.data.image import Form, decode_rows


@dataclass(frozen=True)
class Encoded:
    """Stands in for a uint8 tensor (N, C, H, W): indexing decodes the rows asked for.

    `column` is an Arrow column of encoded images, `rows` (N,) the ones that belong to this part, `where` says
    in errors where an image lies. Raises DataError on indexing for images that cannot be read.
    """

    column: Any
    rows: Tensor
    form: Form
    where: tuple[str, ...]
    device: torch.device | str = "cpu"

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.rows), self.form.channels, *self.form.size))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        chosen = self.rows[rows.cpu() if isinstance(rows, Tensor) else rows]
        pixels = decode_rows(self.column, chosen.reshape(-1), self.form, self.where).to(self.device)
        return pixels if chosen.ndim else pixels[0]

    def to(self, device: torch.device | str) -> "Encoded":
        """Return the same images, to be decoded onto a device."""
        return replace(self, device=device)
