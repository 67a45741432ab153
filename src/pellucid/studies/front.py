"""The front page of all studies: every claim of the papers in one table, their verdict and ours."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pellucid.errors import DataError
from pellucid.report import Cell, Report, Section, Table
from pellucid.studies.claims import ClaimRow, all_of

PAPERS = {
    "ross2018": "Ross & Doshi-Velez 2018",
    "boopathy2020": "Boopathy et al. 2020",
    "zhang2019": "Zhang & Zhu 2019",
    "jakubovitz2018": "Jakubovitz & Giryes 2018",
}
UNJUDGED = "not judged"
_HEADER = ("claim", "paper", "what it says", "the paper", "here", "its parts here")
_NOTE = (
    "The papers state every claim as holding. A claim has as many parts as it has statements that can be true alone; "
    "it holds where all do, and does not where one does not. Rules, numbers and what would decide an open claim are in "
    "the report of its study."
)


def checklist() -> dict[str, dict[str, str]]:
    """Return what the four papers contain: figures I, tables J, claims L and theory H, each with its place."""
    found: dict[str, dict[str, str]] = json.loads(files("pellucid.studies").joinpath("checklist.json").read_text())
    return found


def judged_in(folders: Sequence[Path]) -> list[ClaimRow]:
    """Return the claims that delivered reports judged; raise DataError for a folder without tables.json."""
    rows: list[ClaimRow] = []
    for folder in folders:
        path = folder / "tables.json"
        if not path.is_file():
            raise DataError(f"{folder} holds no tables.json: name the folders of reports (pellucid study run --out)")
        rows += json.loads(path.read_text()).get("claims", [])
    return rows


def verdicts(rows: Sequence[ClaimRow]) -> dict[str, tuple[str, list[ClaimRow]]]:
    """Return for each claim of the checklist the verdict on all of its parts, and the parts.

    >>> verdicts([])["L1"]
    ('not judged', [])
    """
    parts: dict[str, list[ClaimRow]] = {name: [] for name in checklist() if name.startswith("L")}
    for row in rows:
        named = re.match(r"L\d+", row["name"])
        if named and named[0] in parts:
            parts[named[0]].append(row)
    return {
        name: (all_of(row["verdict"] for row in found) if found else UNJUDGED, sorted(found, key=lambda r: r["name"]))
        for name, found in parts.items()
    }


def front_page(rows: Sequence[ClaimRow], reports: Mapping[str, str] | None = None) -> Report:
    """Return the page; `reports` says for a study where its report lies."""
    found, known = verdicts(rows), checklist()
    count = Counter(verdict for verdict, _ in found.values())
    lines = tuple(
        (name, PAPERS[known[name]["study"]], _sentence(known[name]["what"]), "holds", Cell(verdict), _parts(parts))
        for name, (verdict, parts) in found.items()
    )
    notes = (_NOTE, *(f"{PAPERS[study]}: {place}" for study, place in (reports or {}).items()))
    return Report(
        title="Twenty-four claims of four papers",
        subtitle="What the papers say, and what was found here.",
        verdict=tuple(f"{number} of {len(found)}: {verdict}." for verdict, number in count.most_common()),
        sections=(Section("Claims", blocks=(Table("Every claim and its verdict", _HEADER, lines, notes),)),),
    )


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:].rstrip(".") + "."


def _parts(rows: Sequence[ClaimRow]) -> str:
    """Say which part has which verdict; a claim of one part says nothing more."""
    return "; ".join(f"{row['name']} {row['verdict']}" for row in rows) if len(rows) > 1 else ""
