"""Steps that every data set shares: cutting to the first images and the checksum."""

import hashlib

from torch import Tensor

from pellucid.data.encoded import Encoded
from pellucid.errors import DataError
from pellucid.rng import permutation


def limited(rows: Tensor, labels: Tensor, limit: int | None, words: str, what: str) -> tuple[Tensor, str]:
    """Keep the first `limit` rows, and say so in the words; raise DataError if there are fewer, or none at all.

    Where the images are sorted by class, the first ones would show the first classes only: then they are
    taken from a seeded order.
    """
    if not len(rows):
        raise DataError(f"{what} would be empty: {len(labels):,} images are too few to cut it from")
    if limit is None:
        return rows, words
    if limit > len(rows):
        raise DataError(f"{what} has {len(rows):,} images, {limit:,} were asked for")
    chosen = labels[rows]
    if len(rows) > limit and chosen[0] != chosen[-1] and bool((chosen[1:] >= chosen[:-1]).all()):
        rows = rows[permutation(len(rows), seed=0)]
        words = f"{words}, in an order of seed 0 as they are sorted by class"
    return rows[:limit], f"the first {limit:,} of: {words}"


def sha256_of(pixels: Tensor | Encoded, labels: Tensor, masks: Tensor | None = None) -> str:
    """Return the SHA-256 (hex) over the pixels, or the encoded images and the form they get, labels, masks if any."""
    digest = hashlib.sha256()
    if isinstance(pixels, Encoded):
        form = pixels.form
        digest.update(f"{form.channels} {form.size} {form.fit} {form.shown}".encode())
        for row in pixels.rows.tolist():
            digest.update(pixels.column[row].as_py())
    else:
        digest.update(pixels.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().tobytes())
    if masks is not None:
        digest.update(masks.contiguous().numpy().data)
    return digest.hexdigest()
