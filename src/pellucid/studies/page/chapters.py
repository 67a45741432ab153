"""A study's page with its chapters: their sections and claims, and the settings behind everything they rest on."""

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from pellucid.report import Claim, Report, Section, Settings
from pellucid.report.content import Block
from pellucid.spec import digest
from pellucid.studies.page.settings import settings_of
from pellucid.tasks.graph import label, order
from pellucid.tasks.io import Io


def with_chapters(report: Report, io: Io, chapters: Sequence[Any]) -> Report:
    """Return the page with its chapters before its last section, which is that of the choices."""
    found = [io.result(chapter).json("chapter.json") for chapter in chapters]
    sections = [
        _told(section, chapter.instead)
        for chapter, numbers in zip(chapters, found, strict=True)
        for section in import_module(chapter.page).sections(io, chapter, numbers)
    ]
    claims = [Claim(**claim) for numbers in found for claim in numbers.get("claims", ())]
    known = {entry.key for entry in report.settings}
    return replace(
        report,
        verdict=(*report.verdict, *(line for numbers in found for line in numbers.get("readings", ()))),
        claims=tuple(sorted((*report.claims, *claims), key=place_of)),
        sections=(*report.sections[:-1], *sections, *report.sections[-1:]),
        settings=(*report.settings, *(entry for entry in _settings(io, chapters) if entry.key not in known)),
    )


def place_of(claim: Claim) -> tuple[int, str]:
    """Return where a claim stands among the others: L9 before L10a, our own last.

    >>> from pellucid.report import Claim
    >>> place_of(Claim("L10a", "", "", "", "holds", ""))[0], place_of(Claim("ours", "", "", "", "holds", ""))[0]
    (10, 1000)
    """
    number = re.search(r"\bL(\d+)", claim.name)
    return (int(number[1]) if number else 1000, claim.name)


def _told(section: Section, instead: str) -> Section:
    """Return a section whose captions say what stands in for the paper's own."""
    blocks: tuple[Block, ...] = section.blocks
    if instead:
        blocks = tuple(replace(block, caption=f"{block.caption} [{instead}]") for block in blocks)
    return replace(section, blocks=blocks)


def _settings(io: Io, chapters: Sequence[Any]) -> list[Settings]:
    """Return what is recorded behind every network and measurement that the chapters rest on, each once."""
    tasks = {digest(task): task for chapter in chapters for task in order(chapter) if hasattr(task, "rehearse")}
    return [settings_of(task, io.result(task), key[:12], label(task)) for key, task in tasks.items()]
