"""The page of the Ross & Doshi-Velez study: its numbers, figures and pictures, and the settings behind them."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from pellucid.interpreters.heatmap import reduce_channels, resize, scale
from pellucid.report import (
    Box,
    BoxFigure,
    BoxPanel,
    Cell,
    Claim,
    Curve,
    CurveFigure,
    Gallery,
    GalleryRow,
    Heatmap,
    HeatmapFigure,
    Panel,
    Picture,
    Report,
    Section,
    Settings,
    Table,
    render,
    to_markdown,
    to_png,
)
from pellucid.spec import digest, fraction, name_of, register, to_dict
from pellucid.store import Result, write_atomic
from pellucid.studies.ross2018_tables import PRINTED, interpreter_title
from pellucid.tasks.io import Io
from pellucid.tasks.kinds import TaskField

LOOKS = {"normal": ("blue", "o"), "adv. trained": ("darkred", "H")}  # the authors' colours and markers
REGULARISED = (("green", "v"), ("limegreen", "^"), ("darkolivegreen", "<"), ("olive", ">"))
SHOWN_EPSILONS = (0.1, 0.3, 0.5)


@register("task", "ross2018_report")
@dataclass(frozen=True, kw_only=True)
class Ross2018Report:
    """report.html, the tables as Markdown and the figures as PNG, from the study's stored results."""

    tables: TaskField
    choices: tuple[str, ...] = ()  # title, reason, title, reason ...

    version = 1

    def title(self) -> str:
        """Name the work for people."""
        return "report"

    def run(self, io: Io) -> list[str]:
        """Render the page and its figures."""
        page = Page(io, self.tables, tuple(zip(self.choices[::2], self.choices[1::2])))
        report = page.report()
        files = {"report.html": render(report).encode(), "tables.md": page.markdown(report).encode()}
        for name, block in page.figures(report).items():
            files[f"figures/{name}.png"] = to_png(block)
        for name, content in files.items():
            write_atomic(io.scratch / name, content)
        return list(files)


class Page:
    """Builds the content of the page from the tables and the stored per-example results."""

    def __init__(self, io: Io, task: Any, choices: tuple[tuple[str, str], ...]) -> None:
        self.io, self.task, self.choices = io, task, choices
        self.numbers: dict[str, Any] = io.result(task).json("tables.json")
        self.labels: list[str] = self.numbers["labels"]
        self.settings: dict[str, Settings] = {}
        self.printed = {label: printed_name(label, self.numbers["selected"]) for label in self.labels}

    # -------------------------------------------------------------------------------------------- the page

    def report(self) -> Report:
        """Return the whole content."""
        sections = (
            self._transfer(),
            self._gallery(),
            self._stability(),
            self._norms(),
            self._training(),
            self._choices(),
        )
        first = self.io.result(self.task.networks[0]).meta
        data = first["data"]["train"]
        return Report(
            title="Input-gradient regularisation against FGSM",
            subtitle="Ross & Doshi-Velez 2018, "
            + {"smoke": "a smoke run on embedded digits", "small": "at small scale on MNIST", "paper": "at the paper's scale"}[
                self.numbers["scale"]
            ],
            verdict=self._verdict(),
            facts=(
                ("Scale", self.numbers["scale"]),
                ("Data", f"{data['name']}, {data['images']:,} training images"),
                ("Test images", f"{self.numbers['images']:,}"),
                ("Networks", f"{len(self.labels)} + {len(self.task.explained_labels) - len(self.labels)} for CAM"),
                ("Training time", _duration(sum(self.io.result(t).meta["wall_seconds"] for t in self._trained()))),
                ("Device", f"{first['device']}, {first['threads']} threads"),
                ("Seed", str(first["seed"])),
            ),
            claims=tuple(Claim(**row) for row in self.numbers["claims"]),
            sections=sections,
            settings=tuple(self.settings.values()),
            footer=f"Pellucid {first['versions']['pellucid']}, torch {first['versions']['torch']}, commit "
            f"{first['commit'] or 'unknown'}. Intervals are 95 %: Wilson for accuracies, bootstrap for means.",
        )

    def markdown(self, report: Report) -> str:
        """Return the verdicts and tables for a README or a note."""
        lines = [f"# {report.title}", "", report.subtitle, "", *(f"- {line}" for line in report.verdict), "", "## Claims", ""]
        for claim in report.claims:
            lines += [f"**{claim.name}: {claim.verdict}.** {claim.statement} ({claim.source})", "", f"Rule: {claim.rule}", ""]
            lines += [claim.evidence, ""]
        for section in report.sections:
            tables = [block for block in section.blocks if isinstance(block, Table)]
            lines += [f"## {section.title}", "", section.text, ""] if tables or section.text else []
            for table in tables:
                lines += [to_markdown(table), ""]
        return "\n".join(lines)

    def figures(self, report: Report) -> dict[str, CurveFigure | HeatmapFigure | BoxFigure | Gallery]:
        """Return the drawn blocks by file name."""
        drawn = [b for s in report.sections for b in s.blocks if not isinstance(b, Table)]
        kinds = {CurveFigure: "curves", HeatmapFigure: "matrix", BoxFigure: "norms", Gallery: "gallery"}
        found: dict[str, CurveFigure | HeatmapFigure | BoxFigure | Gallery] = {}
        for block in drawn:
            kind = kinds[type(block)]
            count = sum(name.startswith(kind) for name in found)
            found[kind if not count else f"{kind}-{count + 1}"] = block
        return found

    def _verdict(self) -> tuple[str, ...]:
        at = self.numbers["epsilons"].index(0.3)
        own = {label: self.numbers["transfer"][label][label][at]["value"] for label in self.labels}
        away = {label: self.numbers["transfer"]["normal"][label][at]["value"] for label in self.labels}
        clean = {label: self.numbers["transfer"]["normal"][label][0]["value"] for label in self.labels}
        best = self.numbers["selected"]
        counts = [row["verdict"] for row in self.numbers["claims"]]
        return (
            f"Clean accuracy: normal {clean['normal']:.1%}, adv. trained {clean['adv. trained']:.1%}, {best} {clean[best]:.1%}.",
            f"FGSM at eps 0.3 made for each network itself leaves {own['normal']:.1%}, {own['adv. trained']:.1%} and {own[best]:.1%}; "
            f"made for the normal network {away['normal']:.1%}, {away['adv. trained']:.1%} and {away[best]:.1%}.",
            f"Of {len(counts)} claims of the paper {counts.count('holds')} hold here, {counts.count('does not hold')} do not, "
            f"{counts.count('cannot be decided')} cannot be decided at this scale.",
        )

    # ------------------------------------------------------------------------------------------- sections

    def _transfer(self) -> Section:
        epsilons = tuple(self.numbers["epsilons"])
        panels = tuple(
            Panel(f"made for: {maker}", tuple(self._curve(maker, judge, epsilons) for judge in self.labels), "eps", "accuracy")
            for maker in self.labels
        )
        shown = [eps for eps in SHOWN_EPSILONS if eps in epsilons]
        maps = tuple(self._matrix(epsilons.index(eps), eps) for eps in shown)
        return Section(
            "Accuracy on FGSM examples made for each network",
            "Every network classifies the examples made for every network (the paper's Figure 1). Hollow points and small "
            "numbers are the values printed in the authors' notebook for MNIST, 256 test images"
            + (", so of other data than these digits." if self.numbers["scale"] == "smoke" else "."),
            (
                CurveFigure("Accuracy against eps; one panel per network that the examples were made for", panels),
                HeatmapFigure("Transfer matrix: who is fooled by whose examples", maps),
                self._accuracy_table(epsilons),
            ),
        )

    def _curve(self, maker: str, judge: str, epsilons: tuple[float, ...]) -> Curve:
        cells = self.numbers["transfer"][maker][judge]
        colour, marker = self._looks(judge)
        return Curve(
            label=judge,
            x=epsilons,
            y=tuple(c["value"] for c in cells),
            low=tuple(c["low"] for c in cells),
            high=tuple(c["high"] for c in cells),
            printed=tuple(self._printed(maker, judge, eps) for eps in epsilons),
            colour=colour,
            marker=marker,
            settings=self._key(self._transfer_task(maker)),
        )

    def _matrix(self, index: int, eps: float) -> Heatmap:
        def cell(maker: str, judge: str) -> Cell:
            found = self.numbers["transfer"][maker][judge][index]
            key = self._key(self._transfer_task(maker))
            return Cell(found["value"], found["low"], found["high"], self._printed(maker, judge, eps), key)

        values = tuple(tuple(cell(maker, judge) for maker in self.labels) for judge in self.labels)
        return Heatmap(f"eps {fraction(eps)}", tuple(self.labels), tuple(self.labels), values, "classified by", "made for")

    def _accuracy_table(self, epsilons: tuple[float, ...]) -> Table:
        rows = []
        for judge in self.labels:
            for maker, what in ((judge, "itself"), ("normal", "the normal network")):
                if maker == judge and what != "itself":
                    continue
                cells = self.numbers["transfer"][maker][judge]
                key = self._key(self._transfer_task(maker))
                found = (
                    Cell(c["value"], c["low"], c["high"], self._printed(maker, judge, eps), key) for c, eps in zip(cells, epsilons)
                )
                rows.append((judge, what, *found))
        header = ("network", "examples made for", *(f"eps {fraction(eps)}" for eps in epsilons))
        return Table("Accuracy under FGSM: white box, and transferred from the normal network", header, tuple(rows))

    def _gallery(self) -> Section:
        rows = []
        for label, task in zip(self.task.explained_labels, self.task.explained):
            maps = self.io.result(task).tensors("maps.safetensors")
            rows += [self._pictures(label, task, maps, row) for row in self._examples(maps)]
        attack = self.task.explained[0].attack
        return Section(
            "What an attack changes, and what the maps make of it",
            "The difference is drawn on its own scale, stated beneath; maps show the true class, red for evidence and blue against, "
            "each scaled by its own 99th percentile. CAMs exist for networks with a linear head on pooled features only.",
            (
                Gallery(
                    f"Clean and adversarial images ({name_of(attack).upper()}, eps {fraction(attack.eps)}, {attack.steps} steps)",
                    tuple(rows),
                    ("clean", "adversarial", "difference", "map, clean", "map, adversarial", "2nd map, clean", "2nd map, adv."),
                ),
            ),
        )

    def _examples(self, maps: dict[str, Tensor]) -> list[int]:
        """Show the first image whose prediction survives and the first that is fooled, right ones only."""
        right = maps["probabilities_clean"].argmax(1) == maps["labels"]
        fooled = maps["probabilities_adversarial"].argmax(1) != maps["labels"]
        chosen = [torch.nonzero(right & mask)[:1, 0].tolist() for mask in (fooled, ~fooled)]
        return [row for part in chosen for row in part]

    def _pictures(self, label: str, task: Any, maps: dict[str, Tensor], row: int) -> GalleryRow:
        key = self._key(task)
        true = int(maps["labels"][row])
        classes = self.io.result(task.network).json("config.json")["classes"]
        clean, adversarial = maps["clean"][row], maps["adversarial"][row]

        def image(name: str, pixels: Tensor) -> Picture:
            confidence, guess = maps[f"probabilities_{name}"][row].max(0)
            return Picture(
                name, _hwc(pixels), "image", classes[int(guess)], float(confidence), int(guess) == true, settings=key
            )

        pictures = [image("clean", clean), image("adversarial", adversarial)]
        pictures.append(Picture("difference", _hwc(adversarial - clean), "difference", settings=key))
        for number, interpreter in enumerate(task.interpreters):
            for state in ("clean", "adversarial"):
                raw = reduce_channels(maps[f"maps_{number}_{state}"][row : row + 1])
                shown = resize(raw, (clean.shape[1], clean.shape[2])) if raw.shape[1:] != clean.shape[1:] else raw
                tau = float(maps[f"tau_{number}"][row]) if state == "adversarial" else None
                name = f"{interpreter_title(interpreter)}, {state}"
                pictures.append(Picture(name, scale(shown).maps[0].numpy(), "signed", tau=tau, settings=key))
        return GalleryRow(label, tuple(pictures), f"true class {classes[true]}")

    def _stability(self) -> Section:
        rows = []
        tasks = dict(zip(self.task.explained_labels, self.task.explained))
        for row in self.numbers["stability"]:
            key = self._key(tasks[row["network"]])
            cells = [Cell(row[k]["value"], row[k]["low"], row[k]["high"], settings=key, style="number") for k in ("all", "kept")]
            rows.append((row["network"], row["interpreter"], *cells, f"{row['kept']['n']} of {row['images']}"))
        return Section(
            "How stable the maps are under attack",
            "Kendall's tau-b between the map of the true class before and after PGD, mean over images: 1 is the same order of all "
            "pixels, 0 none in common. \"Prediction kept\" leaves out images whose predicted class changed, as Boopathy et al. do; "
            "how many are left stands beside it, since a mean over few says little.",
            (
                Table(
                    "Rank correlation of maps before and after the attack",
                    ("network", "map", "tau, all images", "tau, prediction kept", "images kept"),
                    tuple(rows),
                ),
            ),
        )

    def _norms(self) -> Section:
        panels = []
        for kind, title in (("true", "loss of the true label (FGSM)"), ("next", "loss of the next label (TGSM)")):
            boxes = []
            for label, task in zip(self.labels, self.task.norms):
                values = pq.read_table(self.io.result(task).folder / "norms.parquet")[kind].to_pylist()
                boxes.append(Box(label, tuple(values), self._looks(label)[0], self._key(task)))
            panels.append(BoxPanel(title, tuple(boxes), "l2 norm of the input gradient"))
        return Section(
            "How steep the loss is",
            "Norm of the input gradient of the cross-entropy for each test image (the paper's Figure 4).",
            (BoxFigure("Distribution of input-gradient norms", tuple(panels)),),
        )

    def _training(self) -> Section:
        def panel(title: str, name: str, y_label: str, log: bool) -> Panel:
            curves = []
            for label, task in zip(self.labels, self.task.networks):
                colour, marker = self._looks(label)
                history = self.numbers["history"][label]
                x, y = (tuple(row[k] for row in history) for k in ("step", name))
                curves.append(Curve(label, x, y, colour=colour, marker=marker, settings=self._key(task)))
            return Panel(title, tuple(curves), "step", y_label, log_y=log, y_range=None if log else (0.0, 1.0))

        seconds = []
        for label, task in zip(self.task.explained_labels, self._trained()):
            meta = self.io.result(task).meta
            passes, key = meta["passes"], self._key(task)
            took = Cell(meta["wall_seconds"], settings=key, style="number")
            seconds.append((label, str(task.steps), took, f"{passes['forward']:,}", f"{passes['backward']:,}"))
        return Section(
            "Training",
            "Measured every few steps on the first 512 validation images, in eval mode (the quantities of the paper's Figures 7 and 8).",
            (
                CurveFigure(
                    "Validation accuracy and mean squared input-gradient norm during training",
                    (
                        panel("accuracy", "validation_accuracy", "accuracy", log=False),
                        panel("squared input-gradient norm", "validation_squared_gradient", "mean square", log=True),
                    ),
                ),
                Table(
                    "What training took",
                    ("network", "steps", "seconds", "images forward", "images backward"),
                    tuple(seconds),
                    ("Wall time on the machine named above, other work beside it included.",),
                ),
            ),
        )

    def _choices(self) -> Section:
        rows = tuple((title, reason) for title, reason in self.choices)
        table = Table("What differs from the paper, or is not printed in it", ("choice", "what and why"), rows)
        return Section("Choices", "", (table,))

    # ------------------------------------------------------------------------------------------- details

    def _trained(self) -> list[Any]:
        return [task.network for task in self.task.explained]

    def _transfer_task(self, maker: str) -> Any:
        return self.task.transfers[self.labels.index(maker)]

    def _looks(self, label: str) -> tuple[str, str]:
        if label in LOOKS:
            return LOOKS[label]
        return REGULARISED[self.labels[2:].index(label) % len(REGULARISED)]

    def _printed(self, maker: str, judge: str, eps: float) -> float | None:
        known = PRINTED["transfer"].get(self.printed[maker], {}).get(self.printed[judge], {})
        value: float | None = known.get(f"{eps:.1f}")
        return value

    def _key(self, task: Any) -> str:
        key = digest(task)[:12]
        if key not in self.settings:
            self.settings[key] = settings_of(task, self.io.result(task), key)
        return key


def printed_name(label: str, selected: str) -> str:
    """Return the row of the printed numbers that a network stands beside: the selected lambda is the paper's."""
    return "grad. reg." if label == selected else label


def settings_of(task: Any, result: Result, key: str) -> Settings:
    """Return everything that was recorded behind a result."""
    meta = result.meta
    entries = [
        ("digest", meta["digest"]),
        ("description", json.dumps(_short(to_dict(task)), indent=1)),
        *((f"data, {part}", f"{d['name']}: {d['images']:,} images, {d['cut']}; sha256 {d['sha256']}") for part, d in meta["data"].items()),
        ("seed", str(meta["seed"])),
        ("passes", f"{meta['passes']['forward']:,} images forward, {meta['passes']['backward']:,} backward"),
        ("wall time", _duration(meta["wall_seconds"])),
        ("device", f"{meta['device']}, {meta['threads']} threads"),
        ("versions", ", ".join(f"{name} {version}" for name, version in meta["versions"].items())),
        ("commit", meta["commit"] or "unknown"),
        ("finished", meta["finished"]),
    ]
    return Settings(key, f"{task.title()} ({key})", tuple(entries))


def _short(value: Any, depth: int = 0) -> Any:
    """Replace tasks inside a task by their digest, as the store does."""
    if isinstance(value, dict):
        return {k: _short(v, depth + 1) for k, v in value.items()}
    return [_short(v, depth + 1) for v in value] if isinstance(value, list) else value


def _hwc(pixels: Tensor) -> Any:
    return (pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)).numpy()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
