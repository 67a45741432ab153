"""The page of the Ross & Doshi-Velez study, one section a file."""

from typing import Any

from pellucid.report import Report
from pellucid.studies.ross2018_page import gallery, norms, stability, top, training, transfer
from pellucid.studies.ross2018_page.source import Source
from pellucid.tasks.io import Io

__all__ = ["build_report"]


def build_report(io: Io, task: Any) -> Report:
    """Return the content of the page, from the task that makes it and the results that it names."""
    source, choices = Source(io, task.tables), tuple(zip(task.choices[::2], task.choices[1::2]))
    return Report(
        title="Input-gradient regularisation against FGSM",
        subtitle=top.subtitle(source),
        verdict=top.verdict(source),
        facts=top.facts(source),
        terms=top.terms(source),
        claims=top.claims(source),
        sections=(
            transfer.section(source),
            gallery.section(source),
            stability.section(source),
            norms.section(source),
            training.section(source),
            top.choices(choices),
        ),
        settings=tuple(source.cited.values()),  # read last: the sections above have cited what they show
        footer=top.footer(source),
    )
