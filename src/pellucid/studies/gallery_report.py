"""The picture book of attacks as a task: a page, a Markdown list, and a strip of pictures for each attack."""

from dataclasses import dataclass
from typing import Any

from pellucid.spec import brief, register
from pellucid.store import write_atomic
from pellucid.tasks.io import Io
from pellucid.tasks.training import TaskField


@register("task", "gallery_report")
@dataclass(frozen=True, kw_only=True)
class GalleryReport:
    """report.html, attacks.md and figures/NAME.png from one attacked digit and one natural image an attack."""

    names: tuple[str, ...]
    summaries: tuple[str, ...]
    digits: tuple[TaskField, ...]
    natural: tuple[TaskField, ...]

    def title(self) -> str:
        """Name the work for people."""
        return "gallery"

    def run(self, io: Io) -> list[str]:
        """Draw a strip for each attack, and the page of all of them."""
        from pellucid.report import Gallery, Report, Section, render, to_png  # only who draws pays for it

        rows = [self._row(io, place) for place in range(len(self.names))]
        headings = ("clean", "adversarial", "difference") * 2
        made = {f"figures/{name}.png": to_png(Gallery(name, (row,), headings)) for name, row in zip(self.names, rows)}
        report = Report(
            title="Attacks",
            subtitle="What every attack does to a digit and to a natural image.",
            sections=(Section("Gallery", blocks=(Gallery("Clean, adversarial, difference", tuple(rows), headings),)),),
        )
        made |= {"report.html": render(report).encode(), "attacks.md": self._markdown().encode()}
        for name, content in made.items():
            write_atomic(io.scratch / name, content)
        return list(made)

    def _row(self, io: Io, place: int) -> Any:
        from pellucid.report import GalleryRow
        from pellucid.report.pairs import image_pictures

        pictures = []
        for shown in (self.digits[place], self.natural[place]):
            classes = io.result(shown.network).json("config.json")["classes"]
            pictures += image_pictures(io.result(shown).tensors("maps.safetensors"), 0, classes)
        return GalleryRow(self.names[place].replace("_", " "), tuple(pictures))

    def _markdown(self) -> str:
        parts = ["# Attacks", "Each on one digit and one natural image: clean, adversarial, difference."]
        for name, summary, on_digit, on_natural in zip(self.names, self.summaries, self.digits, self.natural):
            described = " and ".join(f"`{brief(shown.attack)}`" for shown in (on_digit, on_natural))
            parts += [f"## {name}", summary, f"Shown with {described}.", f"![{name}](figures/{name}.png)"]
        return "\n\n".join(parts) + "\n"
