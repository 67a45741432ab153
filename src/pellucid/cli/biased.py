"""What `pellucid bias` measures and hands over: numbers, page, tables and figures."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid

from pellucid.cli.common import Common, export, screen

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.data.split import Split
    from pellucid.metrics import Interval
    from pellucid.report import CurveFigure, Gallery
    from pellucid.report.bias_curves import Results
    from pellucid.report.bias_page import Bias
    from pellucid.store import Result

_PERCENT = "{:.1%}".format
_WIDE = 3  # networks; of more the terminal shows no intervals


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The tasks of the networks called `names`; conflicts and mappings may be none."""

    names: tuple[str, ...]
    split: "Split"
    transformed: tuple[Any, ...]
    conflicts: tuple[Any, ...]
    mappings: tuple[Any, ...]
    batch: int | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything that was measured: by version of the images (0 untouched) what each network says, and the rest."""

    asked: Asked
    bias: "Bias"
    tables: "dict[str, dict[str, Tensor]]"
    results: "dict[str, Result]"
    conflicts: "dict[str, Result]"
    looked: "dict[str, Result]"


def measured(asked: Asked, common: Common) -> Found:
    """Run what is missing and return the numbers."""
    from pellucid.metrics import accuracy, accuracy_on_correct, shape_bias
    from pellucid.report.bias_curves import levels_of, transform_title
    from pellucid.report.bias_page import Bias
    from pellucid.spec import brief
    from pellucid.tasks.parquet import read_columns

    results, conflicts, looked = (
        {name: common.run(task) for name, task in zip(asked.names, tasks)}
        for tasks in (asked.transformed, asked.conflicts, asked.mappings)
    )
    tables = {name: _by_version(result.folder / "transformed.parquet") for name, result in results.items()}
    labels = tables[asked.names[0]]["label"][0]
    cues = {name: read_columns(result.folder / "conflict.parquet") for name, result in conflicts.items()}
    task, mapped = asked.transformed[0], asked.mappings[0] if asked.mappings else None
    bias = Bias(
        images=f"{len(labels):,} {task.part} images of {asked.split.name}",
        transforms=tuple(map(transform_title, task.transforms)),
        levels=levels_of(task.transforms),
        accuracy={name: [accuracy(row, labels) for row in table["predicted"]] for name, table in tables.items()},
        on_correct={
            name: [accuracy_on_correct(clean, row, labels, batch=asked.batch) for row in others]
            for name, (clean, *others) in ((name, table["predicted"]) for name, table in tables.items())
        },
        known={name: int((table["predicted"][0] == labels).sum()) for name, table in tables.items()},
        batch=asked.batch,
        shape={
            name: shape_bias(cue["predicted"], cue["shape"], cue["texture"], clean=cue["clean"])
            for name, cue in cues.items()
        },
        maps=_measures(looked),
        mapped=() if mapped is None else tuple(map(transform_title, mapped.transforms)),
        maps_of="" if mapped is None else f"Maps of the true class by {brief(mapped.interpreter)}.",
        stylizer=", ".join(dict.fromkeys(t.stylizer_name for t in task.transforms if hasattr(t, "stylizer_name"))),
    )
    return Found(asked=asked, bias=bias, tables=tables, results=results, conflicts=conflicts, looked=looked)


def deliver(found: Found, out: Path, common: Common) -> Path:
    """Write page, tables and figures to a folder and return the page's path."""
    from pellucid.cli.bias_pictures import panels_of, strips_of
    from pellucid.report import render, to_png
    from pellucid.report.bias_page import curves_of, page
    from pellucid.studies.page.settings import settings_of

    parts = (
        ("transformed images", found.asked.transformed, found.results),
        ("conflicting cues", found.asked.conflicts, found.conflicts),
        ("maps", found.asked.mappings, found.looked),
    )
    keys, of_shape, of_maps = (
        {name: result.meta["digest"][:12] for name, result in results.items()} for _, _, results in parts
    )
    settings = tuple(
        settings_of(task, result, result.meta["digest"][:12], f"{name}, {what}")
        for what, tasks, results in parts
        for task, (name, result) in zip(tasks, results.items())
    )
    strips, panels, curves = strips_of(found, keys, common), panels_of(found, of_maps), curves_of(found.bias, keys)
    report = page(
        found.bias,
        strips=tuple(strips.values()),
        panels=tuple(panels.values()),
        settings=settings,
        keys=keys,
        keys_of_shape=of_shape,
        keys_of_maps=of_maps,
    )
    drawn: dict[str, CurveFigure | Gallery] = {"curves": curves} if curves is not None else {}
    files = {
        "bias.html": render(report).encode(),
        "bias.csv": _csv(rows_of(found)),
        "bias.json": (json.dumps(numbers(found), indent=1, allow_nan=False) + "\n").encode(),
    }
    export(out, files | {f"{name}.png": to_png(block) for name, block in (drawn | strips | panels).items()})
    return (out / "bias.html").resolve()


def numbers(found: Found) -> dict[str, Any]:
    """Return what was found, for programs."""
    from pellucid.spec import to_dict

    task, bias = found.asked.transformed[0], found.bias
    said: dict[str, Any] = {"data": to_dict(task.data), "part": task.part, "seed": task.seed, "batch": bias.batch}
    said |= {"transforms": to_dict(task.transforms), "rows": rows_of(found)}
    said |= {"stylizer": bias.stylizer} if bias.stylizer else {}
    if bias.shape:
        said["shape_bias"] = {
            name: _ends("shape_bias", one.bias) | {key: getattr(one, key) for key in ("shape", "texture", "neither")}
            for name, one in bias.shape.items()
        }
    if bias.maps:
        said["maps"] = [
            {"network": name, "transform": title, "measure": measure, **_ends("value", own[place])}
            for measure, results in bias.maps.items()
            for name, own in results.items()
            for place, title in enumerate(("untouched", *bias.mapped))
        ]
    return said | {"folders": {name: str(result.folder) for name, result in found.results.items()}}


def rows_of(found: Found) -> list[dict[str, Any]]:
    """Return one row a network and version of the images, the untouched ones first."""
    bias = found.bias
    return [
        {"network": name, "transform": title, "images": len(found.tables[name]["label"][0])}
        | _ends("accuracy", bias.accuracy[name][place])
        | {"correct_untouched": bias.known[name]}
        | _ends("on_correct", bias.on_correct[name][place - 1] if place else None)
        | {"mean_probability": float(found.tables[name]["probability"][place].mean())}
        for name in bias.accuracy
        for place, title in enumerate(("untouched", *bias.transforms))
    ]


def show(found: Found) -> None:
    """Print the numbers for people."""
    bias, console = found.bias, screen()
    how = "" if bias.batch is None else f", mean of the ratios of batches of {bias.batch}"
    print(f"accuracy on correctly classified images{how}; {bias.images}")
    console.print(_grid(bias.transforms, bias.on_correct))
    print("accuracy on all images")
    console.print(_grid(("untouched", *bias.transforms), bias.accuracy))
    if bias.stylizer:
        print(f"stylised by {bias.stylizer}")
    for name, one in bias.shape.items():
        counts = f"{one.shape} by shape, {one.texture} by texture, {one.neither} by neither"
        print(f"shape bias of {name}: {_share(one.bias, True)} ({counts})")
    for measure, results in bias.maps.items():
        print(f"{measure} of maps")
        console.print(_grid(("untouched", *bias.mapped), results, "{:.3f}".format))


def _grid(titles: Sequence[str], results: "Results", spell: Callable[[float], str] = _PERCENT) -> Grid:
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("", overflow="fold")
    for name in results:
        grid.add_column(name, justify="right")
    for place, title in enumerate(titles):
        wide = len(results) <= _WIDE
        grid.add_row(title, *(_share(own[place], wide, spell) for own in results.values()))
    return grid


def _share(share: "Interval", wide: bool, spell: Callable[[float], str] = _PERCENT) -> str:
    if math.isnan(share.value):
        return "-"
    wide = wide and not math.isnan(share.low)  # of one image there is no spread
    return spell(share.value) + (f" ({spell(share.low)} to {spell(share.high)})" if wide else "")


def _by_version(path: Path) -> "dict[str, Tensor]":
    """Return the columns of transformed.parquet as (T + 1, N)."""
    from pellucid.tasks.parquet import read_columns

    columns = read_columns(path)
    versions = int(columns["transform"].max()) + 1
    return {name: values.view(versions, -1) for name, values in columns.items()}


def _measures(looked: "Mapping[str, Result]") -> "dict[str, dict[str, list[Interval]]]":
    """Return the means of each measure of the maps, by network and version of the images."""
    from pellucid.metrics import bootstrap_mean
    from pellucid.report.bias_page import MEASURES

    tables = {name: _by_version(result.folder / "sensitivity.parquet") for name, result in looked.items()}
    return {
        measure: {
            name: [bootstrap_mean(row[row.isfinite()]) for row in table[measure]] for name, table in tables.items()
        }
        for measure in (MEASURES if tables else ())
    }


def _ends(name: str, share: "Interval | None") -> dict[str, float | None]:
    ends = (math.nan,) * 3 if share is None else share
    return {key: None if math.isnan(end) else end for key, end in zip((name, f"{name}_low", f"{name}_high"), ends)}


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
