"""The front page: every claim of the checklist once, judged by all of its parts."""

import json

import pytest

from pellucid.errors import DataError
from pellucid.studies.front import checklist, front_page, judged_in, verdicts
from pellucid.studies.page.files import markdown


def row(name, verdict):
    return {"name": name, "statement": "", "source": "", "rule": "", "verdict": verdict, "evidence": ""}


def test_the_checklist_has_every_figure_table_claim_and_statement():
    count = {letter: sum(name[0] == letter for name in checklist()) for letter in "HIJL"}
    assert count == {"H": 9, "I": 27, "J": 20, "L": 24}


def test_a_claim_holds_where_all_of_its_parts_do():
    found = verdicts([row("L10a", "holds"), row("L10b", "cannot be decided"), row("L1", "holds"), row("L100", "holds")])
    assert found["L10"][0] == "cannot be decided"
    assert found["L1"][0] == "holds"
    assert [part["name"] for part in found["L10"][1]] == ["L10a", "L10b"]
    assert found["L2"][0] == "not judged"
    assert verdicts([row("L3a", "holds"), row("L3b", "does not hold")])["L3"][0] == "does not hold"


def test_our_own_claims_are_not_the_papers():
    assert all(verdict == "not judged" for verdict, _ in verdicts([row("ours", "holds")]).values())


def test_the_page_has_a_line_for_each_claim():
    text = markdown(front_page([row("L7", "does not hold")]))
    assert [f"| L{number} |" in text for number in range(1, 25)] == [True] * 24
    assert "1 of 24: does not hold." in text


def test_claims_come_from_delivered_reports(tmp_path):
    (tmp_path / "tables.json").write_text(json.dumps({"claims": [row("L1", "holds")]}))
    assert judged_in([tmp_path])[0]["name"] == "L1"
    with pytest.raises(DataError, match=r"holds no tables\.json"):
        judged_in([tmp_path / "nowhere"])
