"""The page of the Ross & Doshi-Velez study says what its results say, on made-up results."""

import json
import re
from dataclasses import replace

import pytest
import torch

from pellucid.report import BoxFigure, Cell, CurveFigure, Gallery, HeatmapFigure, Table, render
from pellucid.spec import digest
from pellucid.studies.page.files import figure_names, files, markdown
from pellucid.studies.page.settings import brief, lines
from pellucid.studies.ross2018_page import build_report
from pellucid.studies.ross2018_page.gallery import examples

from .made_up import MadeUpIo


def page_of(io):
    return build_report(io, replace(io.study, choices=("Data", "made up")))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return MadeUpIo(tmp_path_factory.mktemp("smoke"), "smoke")


@pytest.fixture(scope="module")
def report(smoke):
    return page_of(smoke)


@pytest.fixture(scope="module")
def html(report):
    return render(report)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    io = MadeUpIo(tmp_path_factory.mktemp("small"), "small")
    return page_of(io)


def blocks(report, kind):
    return [block for section in report.sections for block in section.blocks if isinstance(block, kind)]


def text_of(html):
    without_styles = re.sub(r"(?s)<style.*?</style>", "", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without_styles))


def test_two_builds_give_the_same_bytes(smoke, report):
    small_report = replace(report, sections=report.sections[3:])  # two figures are enough to compare
    again = page_of(smoke)
    assert files(small_report) == files(replace(again, sections=again.sections[3:]))
    assert render(report) == render(again)


def test_our_numbers_stand_beside_their_interval_and_the_printed_value(report, html):
    table = blocks(report, Table)[0]
    row = next(row for row in table.rows if row[:2] == ("adv. trained", "itself"))
    at = table.header.index("eps 0.3")
    assert (row[at].value, row[at].low, row[at].high) == pytest.approx((0.59, 0.57, 0.61))
    assert row[at].printed == 0.96484375  # the notebook's accuracy of adv. trained on its own examples
    assert "59.0 % 57.0–61.0 paper 96.5" in text_of(html)


def test_the_selected_network_stands_beside_the_printed_regularised_one(report):
    matrix = blocks(report, HeatmapFigure)[0].heatmaps[1]
    assert matrix.caption == "eps 0.3"
    place = matrix.rows.index("grad. reg. λ=1.1")
    assert matrix.values[place][matrix.columns.index("normal")].printed == 0.796875
    assert matrix.values[0][place].printed == 0.3359375  # rows judge, columns were attacked


def test_other_lambdas_have_no_printed_value(small):
    matrix = blocks(small, HeatmapFigure)[0].heatmaps[0]
    printed = [[cell.printed is not None for cell in row] for row in matrix.values]
    known = [True, True, False, False, True]  # the last lambda is the paper's
    assert printed == [[a and b for b in known] for a in known]


def test_the_page_says_that_printed_numbers_are_of_other_data(report, small):
    assert "neither confirms nor refutes" in report.verdict[0]
    assert "not MNIST but digits" in report.sections[0].text
    shown = (blocks(report, CurveFigure)[0], blocks(report, HeatmapFigure)[0], blocks(report, Table)[0])
    assert all("MNIST, not these data" in " ".join(block.notes) for block in shown)
    assert "far from converged" in small.verdict[0]
    assert "not MNIST" not in render(small)


def test_verdicts_are_shown_with_names_and_true_minus_signs(report, html):
    shown = [(claim.name, claim.verdict) for claim in report.claims]
    assert shown[0] == ("Resistance to transferred FGSM (L1)", "holds")
    assert [verdict for _, verdict in shown] == ["holds", "does not hold", "cannot be decided", "holds"]
    assert report.claims[0].evidence == "gap −16.2 points [−19.8, −13.0], 3-4 networks"
    said = text_of(html)
    assert "✓ 2 hold" in said
    assert "✗ 1 does not hold" in said
    assert "normal: right on 90.0 % of clean test images, 60.0 % of FGSM images made for it (eps 0.3)." in said


def test_correlations_have_three_decimals(html):
    assert "−0.003 −0.023 to 0.017" in text_of(html)
    assert "τ 0.250" in text_of(html)


def test_every_number_leads_to_settings_that_the_page_has(report, html):
    keys = {entry.key for entry in report.settings}
    tables = [cell for table in blocks(report, Table) for row in table.rows for cell in row]
    matrices = [m for figure in blocks(report, HeatmapFigure) for m in figure.heatmaps]
    cited = [cell.settings for cell in tables if isinstance(cell, Cell)]
    cited += [cell.settings for matrix in matrices for row in matrix.values for cell in row]
    cited += [c.settings for f in blocks(report, CurveFigure) for panel in f.panels for c in panel.curves]
    cited += [box.settings for f in blocks(report, BoxFigure) for panel in f.panels for box in panel.boxes]
    cited += [p.settings for g in blocks(report, Gallery) for row in g.rows for p in row.pictures]
    cited += [claim.settings for claim in report.claims]
    assert len(cited) > 200
    assert set(cited) <= keys
    assert {target[1:] for target in re.findall(r'href="([^"]+)"', html)} <= set(re.findall(r'id="([^"]+)"', html))


def test_settings_have_titles_of_their_own(small):
    titles = [entry.title for entry in small.settings]
    assert len({title.rpartition(" (")[0] for title in titles}) == len(titles)


def test_the_page_says_how_many_predictions_depended_on_the_batch(smoke, html):
    said = "predictions depended on the batch they were made in"
    assert f"3 {said}" in text_of(html)
    steady = MadeUpIo(smoke.folder.parent / "steady", "smoke")
    path = next(steady.folder.rglob("tables.json"))
    numbers = json.loads(path.read_text())
    path.write_text(json.dumps(numbers | {"unstable": dict.fromkeys(numbers["unstable"], 0)}))
    assert said not in text_of(render(page_of(steady)))


def test_the_page_says_how_the_network_was_selected(html):
    assert "Best mean of those that were eligible." in text_of(html)


def test_the_page_needs_nothing_but_itself(html):
    assert not re.search(r"(?i)https?:|<script|<link|@import|file:", html)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', html))


def test_tasks_inside_a_task_are_named_by_digest(smoke):
    task = smoke.tables.transfers[0]
    described = json.loads(lines(brief(task)))
    network = {"task": "train", "digest": digest(task.network)[:12]}
    assert described["task"] == "evaluate"
    assert described["network"] == network
    assert [judge["task"] for judge in described["judges"]] == ["train", "train"]
    assert described["attack"]["attack"] == "fgsm"
    assert max(len(line) for line in lines(brief(smoke.tables)).splitlines()) <= 90


def test_a_gallery_has_one_row_for_fooled_and_one_for_not_fooled(report):
    paper, small = blocks(report, Gallery)
    assert [row.note for row in paper.rows[:2]] == ["true class 1, fooled", "true class 0, not fooled"]
    assert len(paper.rows) == len(small.rows) == 6
    assert paper.column_titles[-1] == "gradient of certainty, adversarial"
    assert small.column_titles[-1] == "CAM, adversarial"
    for gallery in (paper, small):  # titles above the pictures are true of every picture
        assert all(tuple(p.caption for p in row.pictures) == gallery.column_titles for row in gallery.rows)


def test_wrong_answers_are_no_examples():
    right = torch.eye(2)
    maps = {"probabilities_clean": right, "probabilities_adversarial": right, "labels": torch.tensor([1, 1])}
    assert examples(maps) == [(1, False)]


def test_five_networks_are_told_apart(small):
    looks = {(curve.colour, curve.marker) for curve in blocks(small, CurveFigure)[0].panels[0].curves}
    assert len(looks) == 5


def test_markdown_has_verdicts_tables_and_every_figure(report):
    text = markdown(report)
    assert "**Resistance to transferred FGSM (L1): holds.**" in text
    assert "60.0 % [58.0–62.0] (paper: 11.3)" in text.replace("\u202f", " ")
    assert all(f"]({name})" in text for name in figure_names(report))
    assert list(figure_names(report))[:2] == ["figures/curves.png", "figures/matrix.png"]
