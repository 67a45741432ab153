"""The content of the page on what adversarially trained networks look at, from its tables and stored maps."""

import math
from typing import Any

from pellucid.metrics import Interval
from pellucid.report import Cell, Claim, Report, Section, Table
from pellucid.report.bias_curves import bias_curves, levels_of
from pellucid.report.content import Block, Style
from pellucid.report.panels import panel
from pellucid.report.strips import strip
from pellucid.spec import digest, name_of
from pellucid.store import read_tensors
from pellucid.studies.page.settings import settings_of
from pellucid.studies.zhang2019_claims import UNTOUCHED
from pellucid.studies.zhang2019_tables import CIFAR10, CLEAN, printed_tables
from pellucid.tasks.io import Io

Rows = list[dict[str, Any]]
Line = tuple[Cell | str, ...]
PANELS, STRIPS = 2, 1  # images whose maps, and whose versions, are shown
GROUPS = {  # of levels, by how their names begin: a title, and what the table says
    "saturation": ("Saturation", "p = 2 is the image itself, high p leaves black and white, low p grey. "),
    "shuffle": ("Patch shuffle", "k x k patches in a random order: shape goes, texture stays. "),
    ("low-pass", "high-pass", "random"): (
        "Fourier filters",
        "low-pass r keeps |f| <= r cycles per image, high-pass r what is above, random d drops a share d of modes. ",
    ),
    ("grayscale", "blur", "noise", "edges", "silhouette"): (
        "Between shape and texture",
        "Not in the paper: grey images, blurred by a Gaussian of one pixel, with noise of standard deviation .1; edges "
        "and silhouettes leave shape alone. ",
    ),
}
SHORT = {"saturation": "p = {}", "shuffle": "k = {}", "": "{}"}  # what a column says where the title says the rest
_CORRECT = (
    "of the images that a network classifies correctly when they are untouched, the share that it "
    "still does. Every network is its own reference, pooled over all test images, with 95 % intervals. “paper” is what "
    "the paper prints for ResNet-18 on CIFAR-10."
)
_NETWORKS = (
    "Clean accuracy on the test images, robustness under PGD (eps 8/255 on CIFAR-10, 40 steps), and what training "
    "took, on a machine with other work. “paper”: ResNet-18, Table 1."
)
_MAPS = (
    "SmoothGrad maps of the true class. Sparsity: the Gini index of the map's magnitudes, 1 where one pixel has all. "
    "Contours: rank correlation of magnitudes and the image's Sobel edges. Similarity: rank correlation with the map "
    "of the untouched image. Means over the first images of the test part."
)


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page."""
    measured, found = task.tables, io.result(task.tables).json("tables.json")
    names = list(zip(measured.architectures, measured.methods))
    entries = [
        (part, f"{', '.join(name)}, {what}")
        for name, *parts in zip(
            names, measured.transformed, measured.attacked, measured.mapped, measured.networks, strict=True
        )
        for part, what in zip(parts, ("transformed images", "PGD", "maps", "training"))
    ]
    keys = {
        what: {name: digest(part)[:12] for name, part in zip(names, parts)}
        for what, parts in (("images", measured.transformed), ("pgd", measured.attacked), ("maps", measured.mapped))
    }
    on_cifar = name_of(measured.transformed[0].data) == "cifar10"
    warning = () if on_cifar else ("“paper”: CIFAR-10, not these data, so it is no yardstick.",)
    choices = tuple(zip(task.choices[::2], task.choices[1::2]))
    return Report(
        title="Shape or texture: what adversarially trained networks look at",
        subtitle="Zhang & Zhu 2019: accuracy where texture (saturation, stylising) or shape (patch shuffle) is taken "
        f"away, and maps. Scale: {found['scale']}.",
        verdict=(*warning, *_readings(found["claims"])),
        terms=(("accuracy on correct", _CORRECT),),
        claims=tuple(Claim(**claim) for claim in found["claims"]),
        sections=(
            Section("Networks", _NETWORKS, (_networks(found, keys, warning),)),
            *_transformed(found["rows"], keys["images"], warning),
            Section(
                "Curves",
                "The form of Figures 5 and 7; hollow and dashed: printed.",
                _curves(measured, found["rows"], keys),
            ),
            Section(
                "What the networks look at",
                _MAPS,
                (*_map_tables(found["maps"], keys), *_pictures(io, measured, keys["maps"])),
            ),
            Section("Choices", blocks=(Table("What was chosen, and why", ("", "choice"), choices),)),
        ),
        settings=tuple(settings_of(part, io.result(part), digest(part)[:12], title) for part, title in entries),
    )


def _cell(found: dict[str, float], key: str, printed: float | None = None, style: Style = "percent") -> Cell:
    return Cell(found["value"], found["low"], found["high"], printed, key, style)


def _readings(claims: Rows) -> tuple[str, ...]:
    verdicts = [claim["verdict"] for claim in claims]
    return tuple(
        f"{len(of)} of {len(claims)} claims: {verdict} ({', '.join(of)})."
        for verdict in dict.fromkeys(verdicts)
        for of in ([claim["name"] for claim in claims if claim["verdict"] == verdict],)
    )


def _networks(found: dict[str, Any], keys: dict[str, Any], warning: tuple[str, ...]) -> Table:
    clean = {
        (row["architecture"], row["method"]): row["accuracy"] for row in found["rows"] if row["level"] == UNTOUCHED
    }
    lines: list[Line] = []
    for row in found["networks"]:
        name = (row["architecture"], row["method"])
        lines.append(
            (
                ", ".join(name),
                _cell(clean[name], keys["images"][name], row["printed"]["clean"]),
                _cell(row["robustness"], keys["pgd"][name], row["printed"]["robustness"]),
                Cell(row["steps"]),
                Cell(row["seconds"] / 60, style="number"),
            )
        )
    attacked = found["networks"][0]["attacked"]
    header = ("network", "clean accuracy", f"under PGD ({attacked:,} images)", "batches", "minutes")
    stopped = tuple(f"{r['architecture']}, {r['method']}: {r['stopped']}." for r in found["networks"] if r["stopped"])
    return Table("Networks", header, tuple(lines), (*warning, printed_tables()[CLEAN]["note"] + ".", *stopped))


def _transformed(rows: Rows, keys: dict[Any, str], warning: tuple[str, ...]) -> tuple[Section, ...]:
    architectures = dict.fromkeys(row["architecture"] for row in rows)
    sections = []
    for words, (title, text) in GROUPS.items():
        own = [row for row in rows if row["level"].startswith(words)]
        notes = (*warning, *((printed_tables()[CIFAR10]["note"] + ".",) if words == "saturation" else ()))
        tables = tuple(
            _levels(title, a, [row for row in own if row["architecture"] == a], keys, notes) for a in architectures
        )
        sections.append(Section(title, f"{text}Numbers are accuracy on correct.", tables))
    return tuple(sections)


def _levels(title: str, architecture: str, rows: Rows, keys: dict[Any, str], notes: tuple[str, ...]) -> Table:
    levels = list(dict.fromkeys(row["level"] for row in rows))
    cells: dict[str, list[Cell]] = {}
    for row in rows:
        key = keys[architecture, row["method"]]
        cells.setdefault(row["method"], []).append(_cell(row["on_correct"], key, row["printed"]))
    gaps = [abs(row["on_correct"]["value"] - row["on_correct_of_batches"]["value"]) for row in rows]
    apart = max((gap for gap in gaps if not math.isnan(gap)), default=0.0)
    how = f"The authors' mean of ratios of batches of 32 is {100 * apart:.2f} points from the pooled share at most"
    undefined = sum(map(math.isnan, gaps))
    how += f"; it is undefined for {undefined} numbers, with a batch of no correct image." if undefined else "."
    lines: tuple[Line, ...] = tuple((method, *own) for method, own in cells.items())
    parted = (level.rpartition(" ") for level in levels)
    header = ("method", *(SHORT.get(word, word + " {}").format(level) for word, _, level in parted))
    return Table(f"{title}, {architecture}: accuracy on correct", header, lines, (*notes, how))


def _curves(measured: Any, rows: Rows, keys: dict[str, Any]) -> tuple[Block, ...]:
    scales = levels_of(measured.transformed[0].transforms)
    figures = []
    for architecture in dict.fromkeys(measured.architectures):
        own = [row for row in rows if row["architecture"] == architecture and row["level"] != UNTOUCHED]
        methods = dict.fromkeys(row["method"] for row in own)
        figures.append(
            bias_curves(
                scales,
                {m: [Interval(**row["on_correct"]) for row in own if row["method"] == m] for m in methods},
                printed={m: [row["printed"] for row in own if row["method"] == m] for m in methods},
                settings={method: keys["images"][architecture, method] for method in methods},
                caption=f"{architecture}: accuracy on correct",
            )
        )
    return tuple(figures)


def _map_tables(maps: Rows, keys: dict[str, Any]) -> tuple[Table, ...]:
    levels = list(dict.fromkeys(row["level"] for row in maps))
    tables = []
    for measure in ("sparsity", "contours", "similarity"):
        lines: dict[str, list[Cell]] = {}
        for row in maps:
            key = keys["maps"][row["architecture"], row["method"]]
            cell = _cell(row[measure], key, style="decimals")
            if measure != "similarity" or row["level"] != UNTOUCHED:  # of itself it is 1
                lines.setdefault(f"{row['architecture']}, {row['method']}", []).append(cell)
        header = ("network", *(levels if measure != "similarity" else levels[1:]))
        caption = f"{measure.capitalize()} of the maps, {maps[0]['images']:,} images"
        tables.append(Table(caption, header, tuple((name, *cells) for name, cells in lines.items())))
    return tuple(tables)


def _pictures(io: Io, measured: Any, keys: dict[Any, str]) -> tuple[Block, ...]:
    """Return the maps of Figure 2, and a strip in the form of Figures 1 and 6, with probabilities."""
    stored = {
        name: read_tensors(io.result(part).folder / "maps.safetensors") for name, part in zip(keys, measured.mapped)
    }
    classes = measured.transformed[0].data.load("test").classes
    columns = (UNTOUCHED, *measured.map_levels)
    blocks: list[Block] = []
    for architecture in dict.fromkeys(measured.architectures):
        own = {method: found for (a, method), found in stored.items() if a == architecture}
        settings = {method: keys[architecture, method] for method in own}
        first = next(iter(own.values()))
        titles = [classes[int(label)] for label in first["labels"]]
        images = first["images"].clamp(0, 1)
        blocks += [
            panel(
                images[:, place],
                {method: found["maps"][:, place] for method, found in own.items()},
                columns,
                title=titles[place],
                label=titles[place],
                probabilities={method: found["probabilities"][:, place] for method, found in own.items()},
                caption=f"{architecture}: maps of an image of class {titles[place]}, and the probability of that class",
                settings=settings,
            )
            for place in range(min(PANELS, len(titles)))
        ]
        shown = slice(PANELS, PANELS + STRIPS)
        blocks.append(
            strip(
                images[:, shown],
                columns,
                {method: found["probabilities"][:, shown] for method, found in own.items()},
                classes=titles[shown],
                caption=f"{architecture}: versions of an image, and the probability of the true class",
                settings=settings,
            )
        )
    return tuple(blocks)
