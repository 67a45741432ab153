"""Pictures without labels: an image file, or all image files below a folder."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator

from pellucid.data.assemble import hold
from pellucid.data.folder import Size
from pellucid.data.image import GREY, Fit, Form, open_image, shown_size
from pellucid.data.location import IMAGES, Location, files_below, locate
from pellucid.data.split import Split, check_part
from pellucid.data.table import Table, read_images
from pellucid.data.whole import sha256_of
from pellucid.errors import DataError
from pellucid.spec import Count, read_number, register

Channels = Annotated[Literal[1, 3], BeforeValidator(read_number)]


@register("data", "pictures")
@dataclass(frozen=True, kw_only=True)
class Pictures:
    """An image file, or all images below a folder in the order of their paths, without labels.

    For looking at what a network sees in one's own pictures: `labelled` of the split is False, its labels are
    all 0 and say nothing, `names` are the files. Every part is all of them. Images (N, C, H, W) have one channel
    if all are grey, else three, or as many as `channels` says. `size` (height, width) resizes them, stretched or
    cropped as `fit` says; without it they must have one size. They are taken as viewers show them: turned as
    their EXIF data say, transparent pixels on white, animations by their first frame. `limit` keeps the first
    n. `sha256`, that of a loaded split, says which pictures are meant: others may lie at the path one day.
    `load` raises DataError for anything missing, unreadable, of unequal sizes or not meant, and names the file.
    Source: none.
    """

    path: str
    size: Size | None = None
    fit: Fit = "stretch"
    channels: Channels | None = None
    limit: Count | None = None
    sha256: str | None = None

    def load(self, part: str) -> Split:
        """Return the pictures; every part is all of them."""
        check_part(part)
        home, files = self._files()
        n = self.limit or len(files)
        if n > len(files):
            raise DataError(f"{self.path!r} has {len(files):,} images, {n:,} were asked for")
        location = locate("images", {"test": files[:n]}, f"pictures {self.path}")
        every = f"all {len(files):,} pictures in the order of their paths, the same for every part"
        split = _load(location, self.size, self.fit, self.channels)
        if self.sha256 not in (None, split.sha256):
            raise DataError(f"the pictures at {self.path!r} are not those that were described: they have been changed")
        return replace(
            split,
            name=home.name or "pictures",
            part=part,
            cut=every if n == len(files) else f"the first {n:,} of: {every}",
            names=tuple(file.relative_to(home).as_posix() for file in files[:n]),
        )

    def _files(self) -> tuple[Path, tuple[Path, ...]]:
        """Return the folder in which the names begin, and the files."""
        path = Path(self.path).expanduser().absolute()
        known = ", ".join(sorted(kind.removeprefix(".") for kind in IMAGES))
        if path.is_file():
            if path.suffix.lower() not in IMAGES:
                raise DataError(f"{self.path!r} is not called like an image ({known}): convert or rename it")
            return path.parent, (path,)
        if not path.is_dir():
            raise DataError(f"there is neither a file nor a folder {self.path!r}")
        files = files_below(path)
        if not files:
            raise DataError(f"the folder {self.path!r} holds no images ({known})")
        return path, files


@functools.lru_cache(maxsize=4)
def _load(location: Location, size: tuple[int, int] | None, fit: Fit, channels: int | None) -> Split:
    table = read_images(location.files("test"), ())
    form = _form(table, size, fit, channels)
    pixels = hold(table, torch.arange(len(table.labels)), form)
    return Split(
        name="pictures",
        part="test",
        pixels=pixels,
        labels=table.labels,
        classes=("unlabelled",),
        sha256=sha256_of(pixels, table.labels),
        cut="",
        source=location.source,
        labelled=False,
    )


def _form(table: Table, size: tuple[int, int] | None, fit: Fit, channels: int | None) -> Form:
    """Return what all pictures become; only headers are read. Raises DataError for unequal sizes without `size`."""
    grey, sizes = True, []
    for data, where in zip(table.images, table.where):
        image = open_image(data.as_py(), where)
        grey = grey and image.mode in (*GREY, "LA")
        sizes.append(shown_size(image))
    odd = next((i for i, found in enumerate(sizes) if found != sizes[0]), None)
    if size is None and odd is not None:
        (h, w), (first_h, first_w) = sizes[odd], sizes[0]
        raise DataError(
            f"{table.where[odd]} is {h}x{w}, {table.where[0]} is {first_h}x{first_w}: give size=HEIGHT,WIDTH"
        )
    return Form(channels or (1 if grey else 3), size or sizes[0], resize=size is not None, fit=fit, shown=True)
