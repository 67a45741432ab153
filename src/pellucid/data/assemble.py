"""From located files to a split: read, cut, decode, checksum."""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from pellucid.data.cuts import choose
from pellucid.data.encoded import Encoded
from pellucid.data.image import Form, all_grey, decode_rows, name_of_row, open_image
from pellucid.data.location import Location
from pellucid.data.source import Role, Source
from pellucid.data.split import Split
from pellucid.data.survey import survey
from pellucid.data.survey import words as left_out
from pellucid.data.table import Table, read_images, read_parquet, superclass
from pellucid.data.whole import limited, sha256_of
from pellucid.errors import DataError

LIMIT = 2 << 30  # bytes of pixels beyond which images stay encoded
MOST = 100_000  # classes without names: larger numbers are no class labels


@functools.lru_cache(maxsize=12)
def assemble(source: Source, location: Location, part: str, limit: int | None) -> Split:
    """Return a part of the set at a location, cut to its first `limit` images.

    Raises DataError for unreadable files or images, labels outside the classes, and parts that are not there.
    """

    role, places, words = choose(
        part,
        location.published,
        lambda role: table_of(source, location, role).labels[usable(source, location, role)[0]],
        lambda role: _groups(source, location, role),
        first=source.first,
        fifth=source.fifth,
    )
    rows = usable(source, location, role)[0][places]
    return collect(source, location, part, role, rows, words, limit)


def collect(
    source: Source, location: Location, part: str, role: Role, rows: Tensor, words: str, limit: int | None
) -> Split:
    """Return the split that some rows of a published split make up, cut to its first `limit` images."""
    table, classes = table_of(source, location, role), class_names(source, location)
    check_labels(table.labels, len(classes), f"the {role} split of {source.name}")
    rows, words = limited(rows, table.labels, limit, words, f"the {part} part of {source.name}")
    skipped = usable(source, location, role)[1]
    pixels, labels = hold(table, rows, form_of(source, location, role)), table.labels[rows]
    return Split(
        name=source.name,
        part=part,
        pixels=pixels,
        labels=labels,
        classes=classes,
        sha256=sha256_of(pixels, labels),
        cut=f"{words}; {left_out(skipped)}" if skipped else words,
        source=location.source,
        value_range=source.value_range,
        labelled=source.labelled,
        names=_file_names(location, role, rows),
        skipped=skipped,
        margin=source.margin,
    )


def hold(table: Table, rows: Tensor, form: Form) -> Tensor | Encoded:
    """Return some images as pixels (N, C, H, W), or encoded if they are too large for memory."""
    if len(rows) * form.channels * math.prod(form.size) > LIMIT:
        return Encoded(table.images, rows, form, table.where)
    return decode_rows(table.images, rows, form, table.where)


def _file_names(location: Location, role: Role, rows: Tensor) -> tuple[str, ...] | None:
    """Return the name of each image's file with its class folder, None where the images have no files."""
    if location.layout == "parquet":
        return None
    files = location.files(role)
    return tuple(f"{files[row].parent.name}/{files[row].name}" for row in rows.tolist())


@functools.lru_cache(maxsize=3)
def table_of(source: Source, location: Location, role: Role) -> Table:
    """Return a published split as it is stored; raise DataError if it is not there, unreadable or empty."""
    where = f"the {role} split of {source.name}"
    if location.layout == "images":
        table = read_images(location.files(role), location.folders if source.labelled else ())
        if source.superclasses:
            table = replace(table, labels=superclass(table.labels, source))
    else:
        table = read_parquet(location.files(role), source, where)
    if not len(table.labels):
        raise DataError(f"{where} is empty")
    return table


@functools.lru_cache(maxsize=6)
def usable(source: Source, location: Location, role: Role) -> tuple[Tensor, tuple[str, ...]]:
    """Return the rows of a published split that can be used, and the images that are left out."""
    where = f"the {role} split of {source.name}"
    rows, skipped = survey(table_of(source, location, role), source, where)
    if not len(rows):
        raise DataError(f"{where} is empty but for {left_out(skipped)}")
    return rows, skipped


def _groups(source: Source, location: Location, role: Role) -> Tensor | None:
    group = table_of(source, location, role).group
    return None if group is None else group[usable(source, location, role)[0]]


def class_names(source: Source, location: Location) -> tuple[str, ...]:
    """Return the class names: those of the files, else the known ones, else the numbers that occur."""
    if source.superclasses:
        return tuple(name for name, _, _ in source.superclasses)
    if not source.labelled:
        return ("unlabelled",)
    tables = [table_of(source, location, role) for role in location.roles[:1]]
    if tables[0].classes or source.classes:
        return tables[0].classes or source.classes
    highest = max(int(table_of(source, location, role).labels.max()) for role in location.roles)
    if highest >= MOST:
        raise DataError(f"{source.name} has the label {highest:,}; class labels are numbers below {MOST:,}")
    return tuple(str(number) for number in range(highest + 1))


def check_labels(labels: Tensor, classes: int, where: str) -> None:
    """Raise DataError unless all labels are class numbers."""
    low, high = (int(value) for value in torch.aminmax(labels))
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise DataError(f"{where} has the label {wrong}, outside its {classes} classes")


def form_of(source: Source, location: Location, role: Role) -> Form:
    """Return what every image of a published split is turned into."""
    table = table_of(source, location, role)
    channels = source.channels or _channels(source, location)
    if source.size:
        return Form(channels, source.size, resize=True, fit=source.fit)
    first = int(usable(source, location, role)[0][0])
    width, height = open_image(table.images[first].as_py(), name_of_row(table.where, first)).size
    return Form(channels, (height, width))


@functools.lru_cache(maxsize=16)
def _channels(source: Source, location: Location) -> int:
    tables = ((table_of(source, location, role), usable(source, location, role)[0]) for role in location.roles)
    return 1 if all(all_grey(table.images, rows, table.where) for table, rows in tables) else 3
