"""The page as files: HTML, the tables as Markdown, the figures as PNG."""

from pellucid.report import (
    BoxFigure,
    CurveFigure,
    Gallery,
    HeatmapFigure,
    Report,
    Section,
    Table,
    render,
    to_markdown,
    to_png,
)
from pellucid.store import write_atomic
from pellucid.tasks.io import Io

Drawn = CurveFigure | HeatmapFigure | BoxFigure | Gallery
NAMES = {CurveFigure: "curves", HeatmapFigure: "matrix", BoxFigure: "norms", Gallery: "gallery"}


def written(io: Io, report: Report) -> list[str]:
    """Write every file of a report into a task's scratch folder and return their names."""
    made = files(report)
    for name, content in made.items():
        write_atomic(io.scratch / name, content)
    return list(made)


def files(report: Report) -> dict[str, bytes]:
    """Return the content of every file by its name."""
    names = figure_names(report)
    pictures = {name: to_png(block) for name, block in names.items()}
    return {"report.html": render(report).encode(), "tables.md": markdown(report).encode(), **pictures}


def figure_names(report: Report) -> dict[str, Drawn]:
    """Return the drawn blocks by file name, counted by kind: curves.png, curves-2.png ..."""
    found: dict[str, Drawn] = {}
    count = dict.fromkeys(NAMES.values(), 0)
    for block in (block for section in report.sections for block in section.blocks):
        if not isinstance(block, Table):
            kind = NAMES[type(block)]
            count[kind] += 1
            found[f"figures/{kind}{'' if count[kind] == 1 else f'-{count[kind]}'}.png"] = block
    return found


def markdown(report: Report) -> str:
    """Return verdict, claims, tables and references to the figures, for a README or a note."""
    parts = [f"# {report.title}", report.subtitle, "\n".join(f"- {line}" for line in report.verdict)]
    if report.terms:
        parts += ["## Terms", "\n".join(f"- **{word}**: {meaning}" for word, meaning in report.terms)]
    parts += ["## Claims"] if report.claims else []
    for claim in report.claims:
        parts += [f"**{claim.name}: {claim.verdict}.** {claim.statement} ({claim.source})"]
        parts += [f"Rule: {claim.rule}", f"Evidence: {claim.evidence}"]
    names = [(block, name) for name, block in figure_names(report).items()]
    for section in report.sections:
        parts += [f"## {section.title}", section.text, *_blocks(section, names)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _blocks(section: Section, names: list[tuple[Drawn, str]]) -> list[str]:
    said = []
    for block in section.blocks:
        if isinstance(block, Table):
            said.append(to_markdown(block))
        else:
            name = next(name for drawn, name in names if drawn is block)
            said += [f"![{block.caption}]({name})", *block.notes]
    return said
